package provider

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Profile describes one authorization server. A field that is left out is taken from the built-in profile that Base
// names; there a field left out has the default given here. Pointers tell "left out" from "off".
type Profile struct {
	// Base names the built-in profile that this one starts from. Default "generic".
	Base string `yaml:"profile"`

	// TokenEndpoint is the https URL that token requests are sent to (RFC 6749 §3.2). Required.
	TokenEndpoint string `yaml:"token_endpoint"`
	// Issuer is the server's issuer identifier (RFC 8414 §2). Only for people so far. Default none.
	Issuer string `yaml:"issuer"`

	// AuthMethods are the client authentication methods that the server takes. Default all that the broker knows.
	AuthMethods []tokenbroker.AuthMethod `yaml:"auth_methods"`
	// RawBasic sends client id and secret in the Basic header as they are, not form-encoded as RFC 6749 §2.3.1 wants.
	// Default false.
	RawBasic *bool `yaml:"raw_basic"`
	// Accept is the Accept header of token requests. Default "application/json".
	Accept string `yaml:"accept"`
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
	// ExpiryUnit is the unit of ExpiryField and RefreshTokenExpiryField, "s" or "ms". Default "s".
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
	// Proxy is the http or https URL of a proxy to connect through. Default none; the environment is never asked. With a
	// proxy the addresses behind it can't be checked.
	Proxy string `yaml:"proxy"`
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
	// RetryAfter is how long to wait, if the reply does not say. 0 = the engine decides.
	RetryAfter Duration `yaml:"retry_after"`

	pattern *regexp.Regexp // Description, compiled by New
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

// over returns base with all that p says put over it. Form fields are added to base's, error rules go before base's.
func (p Profile) over(base Profile) Profile {
	merged := base
	to, from := reflect.ValueOf(&merged).Elem(), reflect.ValueOf(p)
	for i := range from.NumField() {
		if !from.Field(i).IsZero() {
			to.Field(i).Set(from.Field(i))
		}
	}
	merged.TokenParams = maps.Clone(base.TokenParams)
	if merged.TokenParams == nil {
		merged.TokenParams = map[string]string{}
	}
	maps.Copy(merged.TokenParams, p.TokenParams)
	merged.Errors = slices.Concat(p.Errors, base.Errors)
	merged.AuthMethods, merged.BearerTypes = slices.Clone(merged.AuthMethods), slices.Clone(merged.BearerTypes)
	merged.Metadata = slices.Clone(merged.Metadata)
	return merged
}
