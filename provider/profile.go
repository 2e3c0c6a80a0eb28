package provider

import (
	"regexp"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Profile describes one authorization server. A field that is left out is taken from the built-in profile that Base
// names; there a field left out has the default given here. Pointers tell "left out" from "off".
type Profile struct {
	// Base names the built-in profile that this one starts from. Default "generic".
	Base string `yaml:"profile"`

	// Title is the provider's name as people write it. Default the profile's name.
	Title string `yaml:"title"`
	// Notes is what an operator has to know: where to click, the redirect URI to register, quirks. Markdown. Default none.
	Notes string `yaml:"notes"`
	// Sources are the URLs of the documents that the profile was made from. Default none.
	Sources []string `yaml:"sources"`
	// TestOf names the built-in profile of which this one is the vendor's own test environment. Default none.
	TestOf string `yaml:"test_of"`
	// Parts declares the variable parts of the URLs, audiences and parameters below, written {name} there, e.g. a tenant. Default none.
	Parts map[string]Part `yaml:"parts"`
	// With gives the parts' values. Required for each part without a default. They are in their places once [New] has merged the profile.
	With map[string]string `yaml:"with"`

	// TokenEndpoint is the https URL that token requests are sent to (RFC 6749 §3.2). Required, but with Discover and where Grants has
	// none that asks there.
	TokenEndpoint string `yaml:"token_endpoint"`
	// RefreshEndpoint is where refresh tokens are sent to, if that is another URL. Default TokenEndpoint.
	RefreshEndpoint string `yaml:"refresh_endpoint"`
	// AuthorizationEndpoint is where a person consents (RFC 6749 §3.1). Default none: no authorization code grant.
	AuthorizationEndpoint string `yaml:"authorization_endpoint"`
	// DeviceAuthorizationEndpoint gives device codes (RFC 8628 §3.1). Default none: no device grant.
	DeviceAuthorizationEndpoint string `yaml:"device_authorization_endpoint"`
	// RevocationEndpoint ends tokens (RFC 7009). Default none: tokens end by themselves.
	RevocationEndpoint string `yaml:"revocation_endpoint"`
	// RevocationStyle is how to ask it: "rfc7009" (default), "bearer" (POST with the token as bearer), "query" (POST with the token as the
	// only parameter, no client authentication), "github" (DELETE with Basic and a JSON body; {client_id} in the endpoint is the client's).
	RevocationStyle string `yaml:"revocation_style"`
	// IntrospectionEndpoint judges tokens (RFC 7662). Default none.
	IntrospectionEndpoint string `yaml:"introspection_endpoint"`
	// UserinfoEndpoint tells whose token it is: a GET with the bearer token that answers JSON. Default none.
	UserinfoEndpoint string `yaml:"userinfo_endpoint"`
	// TestEndpoint is a cheap GET that answers 2xx to any valid token and 401 to others. Default UserinfoEndpoint.
	TestEndpoint string `yaml:"test_endpoint"`
	// JWKSURI is where the server's public keys are (RFC 7517). Default none.
	JWKSURI string `yaml:"jwks_uri"`
	// Issuer is the server's issuer identifier (RFC 8414 §2). Default none.
	Issuer string `yaml:"issuer"`
	// Discover fills endpoints that are not given from the issuer's metadata (RFC 8414, OpenID Connect Discovery). Default false.
	Discover *bool `yaml:"discover"`

	// Grants are the grants that the server knows, the one to prefer first. Default all but password, which only a profile that names it
	// allows. See [Profile.Knows].
	Grants []tokenbroker.GrantType `yaml:"grants"`
	// GrantTypes are the values of grant_type where the server wants another than the standard's, e.g. client_credentials:
	// account_credentials. Default none.
	GrantTypes map[tokenbroker.GrantType]string `yaml:"grant_types"`
	// PKCE is "s256" (default) or "off", for a server that refuses requests with a code_challenge. A public client can't use "off".
	PKCE string `yaml:"pkce"`
	// IssParameter: the callback carries iss (RFC 9207), and one without is refused. Default false: it is compared if it is there.
	IssParameter *bool `yaml:"iss_parameter"`
	// LoopbackRedirect is the redirect URI of a consent on this machine, {port} being any free port. Default
	// "http://127.0.0.1:{port}/callback" (RFC 8252 §7.3). A server that wants the port registered has it written out. "none" is for one
	// that takes no plain http redirect at all: consent by link.
	LoopbackRedirect string `yaml:"loopback_redirect"`
	// AuthorizationParams are query fields added to authorization requests, e.g. access_type: offline. Default none.
	AuthorizationParams map[string]string `yaml:"authorization_params"`
	// ScopeParameter is the field that carries scopes in authorization requests. Default "scope"; "user_scope" at Slack.
	ScopeParameter string `yaml:"scope_parameter"`
	// ConsentScopes are asked for with every consent besides the credential's own, e.g. offline_access. Default none.
	ConsentScopes []string `yaml:"consent_scopes"`
	// Scopes say what scopes mean, for pages and people. A scope need not be listed to be asked for. Default none.
	Scopes []ScopeInfo `yaml:"scopes"`
	// ScopeAliases are spellings in replies → the scope as it is asked for, e.g. "email" → "https://www.googleapis.com/auth/userinfo.email".
	ScopeAliases map[string]string `yaml:"scope_aliases"`
	// ScopeResource is what goes before a scope that names no resource, e.g. "https://graph.microsoft.com/": a reply may say it either way.
	// Default none.
	ScopeResource string `yaml:"scope_resource"`
	// CatchAllScope is how a scope ends that asks for all that was granted on its resource, e.g. "/.default": a reply lists those instead.
	// Default none.
	CatchAllScope string `yaml:"catch_all_scope"`
	// Account are the places where a reply to a consent says whose account it is, the first that holds a text counts: a dotted path in the
	// reply, or in "id_token." or "userinfo.". Default id_token.email, id_token.sub.
	Account []string `yaml:"account"`

	// AuthMethods are the client authentication methods that the server takes. Default all that the broker knows.
	AuthMethods []tokenbroker.AuthMethod `yaml:"auth_methods"`
	// RawBasic sends client id and secret in the Basic header as they are, not form-encoded as RFC 6749 §2.3.1 wants.
	// Default false.
	RawBasic *bool `yaml:"raw_basic"`
	// Accept is the Accept header of token requests. Default "application/json".
	Accept string `yaml:"accept"`
	// BodyFormat is how token requests are written: "form" (default), "json", or "query" (in the URL, with an empty body).
	BodyFormat string `yaml:"body_format"`
	// AssertionAudience is the aud of client assertions (RFC 7523 §3): "token_endpoint" (default), "issuer", or the value itself.
	AssertionAudience string `yaml:"assertion_audience"`
	// GrantAudience is the same for the assertion of a jwt_bearer grant. Default "token_endpoint".
	GrantAudience string `yaml:"grant_audience"`
	// AssertionLife is the life of assertions, at most 1 h. Default 5 min.
	AssertionLife *Duration `yaml:"assertion_life"`
	// ScopeInAssertion: the assertion of a jwt_bearer grant carries the scopes as a claim and the form none. Default true.
	ScopeInAssertion *bool `yaml:"scope_in_assertion"`
	// AssertionClaims are further claims of the assertion of a jwt_bearer grant. Default none.
	AssertionClaims map[string]string `yaml:"assertion_claims"`
	// SubjectTokenType and RequestedTokenType are those of token exchange (RFC 8693 §3). Default urn:ietf:params:oauth:token-type:access_token.
	SubjectTokenType   string `yaml:"subject_token_type"`
	RequestedTokenType string `yaml:"requested_token_type"`
	// ExchangeUnauthenticated sends token exchanges without client authentication, as Google's STS wants. Default false.
	ExchangeUnauthenticated *bool `yaml:"exchange_unauthenticated"`
	// APIKeyHeader is the header that carries a static token where it is not "Authorization: Bearer". Default none.
	APIKeyHeader string `yaml:"api_key_header"`
	// TokenParams are form fields added to every token request. They can't replace a field of the protocol.
	TokenParams map[string]string `yaml:"token_params"`
	// ScopeSeparator joins scopes in requests and, besides blanks, splits them in replies. Default " ".
	ScopeSeparator string `yaml:"scope_separator"`
	// ScopeOnRefresh sends the scopes with a refresh even when they are those of the grant. Default false: left out.
	ScopeOnRefresh *bool `yaml:"scope_on_refresh"`
	// AudienceParameter is the form field that carries a variant's audience: "audience" (default) or "resource"
	// (RFC 8707).
	AudienceParameter string `yaml:"audience_parameter"`

	// TokenPath is the dotted path of the object in the reply that holds the tokens, e.g. "authed_user". The tokens are
	// then looked for there and nowhere else. Default: the reply itself.
	TokenPath string `yaml:"token_path"`
	// ExpiryField names the field with the access token's life. Default "expires_in".
	ExpiryField string `yaml:"expiry_field"`
	// ExpiryUnit is the unit of ExpiryField and RefreshTokenExpiryField: "s" or "ms" from now, "unix" or "unix_ms" since the epoch, or
	// "rfc3339" for a time. Default "s".
	ExpiryUnit string `yaml:"expiry_unit"`
	// RefreshTokenExpiryField names the field with the refresh token's life. Default "refresh_token_expires_in".
	RefreshTokenExpiryField string `yaml:"refresh_token_expiry_field"`
	// BearerTypes are values of token_type, besides "bearer" in any case, that mean a bearer token here. Default none.
	BearerTypes []string `yaml:"bearer_types"`
	// OKField names a boolean field that is false when a reply with status 200 is an error. Default none.
	OKField string `yaml:"ok_field"`
	// ErrorPath is the dotted path of the error code. Default "error".
	ErrorPath string `yaml:"error_path"`
	// Metadata are dotted paths of reply fields to pass on to workers with the token, e.g. "instance_url". Never a token
	// or a secret. Default none.
	Metadata []string `yaml:"metadata"`
	// Errors say what certain errors mean at this server. The first that matches wins, before the default table.
	Errors []ErrorRule `yaml:"errors"`

	// DefaultLife is the life of an access token whose reply names none. Default 1 h.
	DefaultLife *Duration `yaml:"default_life"`
	// Rotates: a refresh may bring a new refresh token. Default true, the strict reading.
	Rotates *bool `yaml:"rotates"`
	// Grace is how long the previous refresh token still works after a rotation. Default 0: not at all.
	Grace *Duration `yaml:"grace"`
	// KillsOld: a refresh ends the previous access token at once. Default false.
	KillsOld *bool `yaml:"kills_old"`
	// IdleLife is how long an unused refresh token lives. Default 0: for ever.
	IdleLife *Duration `yaml:"idle_life"`
	// AbsoluteLife is how long after consent a refresh token dies in any case. Default 0: never.
	AbsoluteLife *Duration `yaml:"absolute_life"`
	// Strikes is the number of consecutive invalid_grant before a grant is taken for dead. Default 1.
	Strikes *int `yaml:"strikes"`
	// Floor is the least time between refreshes that callers cause. Default 30 s.
	Floor *Duration `yaml:"floor"`
	// LiveTokens is the number of access tokens that the server keeps alive per grant. Default 0: no limit known.
	LiveTokens *int `yaml:"live_tokens"`
	// Downscopes: a request may ask for fewer scopes than the grant has and the reply says which it gave. Default false.
	Downscopes *bool `yaml:"downscopes"`

	// Rate is the number of token requests per second and OAuth client that the server bears. Default 0: the engine's.
	Rate float64 `yaml:"rate"`
	// Burst is the number of token requests that may be sent at once. Default 0: the engine's.
	Burst int `yaml:"burst"`

	// CAFile names a PEM file with the only roots that the server's certificate may chain to. Default: the system's.
	CAFile string `yaml:"ca_file"`
	// Proxy is the http or https URL of a proxy to connect through. Default none; the environment is never asked. The broker
	// finds and checks the addresses behind it itself, and asks the proxy for these.
	Proxy string `yaml:"proxy"`
	// ProxyResolves leaves it to the proxy to find the addresses, for networks whose name server knows none but their own. They
	// can't be checked then: the proxy is trusted not to reach inside. Default false.
	ProxyResolves bool `yaml:"proxy_resolves"`
	// AllowPrivate allows the endpoint on private and loopback addresses, for servers on premises. Link-local and cloud
	// metadata addresses stay refused. Default false.
	AllowPrivate bool `yaml:"allow_private"`
	// InsecureLoopback allows plain http, to a loopback address given as a literal. For development. Default false.
	InsecureLoopback bool `yaml:"insecure_loopback"`
}

// ErrorRule says what an error means at one server. The conditions that are given must all hold; at least one is.
type ErrorRule struct {
	// Status is the HTTP status. 0 = any.
	Status int `yaml:"status"`
	// Code is the error code, in any case, as the server sends it. "" = any.
	Code string `yaml:"code"`
	// Description is a regular expression (RE2) looked for in the description, or in the body of a reply without structure. "" = any.
	Description string `yaml:"description"`
	// Class is what it means: dead_grant, configuration, throttled, transient, ambiguous or clock_skew.
	Class tokenbroker.Class `yaml:"class"`
	// Cause is what is behind it, in the vocabulary of package explain. "" = nothing more is known.
	Cause tokenbroker.Cause `yaml:"cause"`
	// RetryAfter is how long to wait, if the reply does not say. 0 = the engine decides.
	RetryAfter Duration `yaml:"retry_after"`

	pattern *regexp.Regexp // Description, compiled by New
}

// Part is a variable part of a built-in profile's URLs.
type Part struct {
	// About says what it is and where to find it.
	About string `yaml:"about"`
	// Pattern is a regular expression (RE2) that the whole value has to match. Whatever it says, a value has no blank and none of / @ : ? # % \.
	Pattern string `yaml:"pattern"`
	// Default is the value if none is given. "" = it is required.
	Default string `yaml:"default"`
	// Example is a value to show. It fits Pattern.
	Example string `yaml:"example"`
}

// ScopeInfo says what a scope means.
type ScopeInfo struct {
	// Name is the scope as it is asked for.
	Name string `yaml:"name"`
	// Meaning is one line for whoever is asked to consent.
	Meaning string `yaml:"meaning"`
}

// Matches reports whether the rule speaks of an error. Code and description are as the server sent them.
func (r ErrorRule) Matches(status int, code, description string) bool {
	return (r.Status == 0 || r.Status == status) &&
		(r.Code == "" || strings.EqualFold(r.Code, code)) &&
		(r.pattern == nil || r.pattern.MatchString(description))
}

// Traits returns what the engine has to know of the server.
func (p Profile) Traits() tokenbroker.Traits {
	return tokenbroker.Traits{
		Rotates:      p.Rotates == nil || *p.Rotates,
		Grace:        value(p.Grace),
		KillsOld:     p.KillsOld != nil && *p.KillsOld,
		IdleLife:     value(p.IdleLife),
		AbsoluteLife: value(p.AbsoluteLife),
		Strikes:      number(p.Strikes),
		Floor:        value(p.Floor),
		LiveTokens:   number(p.LiveTokens),
		DefaultLife:  value(p.DefaultLife),
		Downscopes:   p.Downscopes != nil && *p.Downscopes,
	}
}

func value(d *Duration) time.Duration {
	if d == nil {
		return 0
	}
	return time.Duration(*d)
}

func number(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}
