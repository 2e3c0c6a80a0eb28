package tokenbroker

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits on what a caller or an operator may send. They hold before any look-up.
const (
	MaxNameBytes     = 128
	MaxScopes        = 100
	MaxScopeBytes    = 256
	MaxSubjectBytes  = 320
	MaxAudienceBytes = 1024
	MaxLabels        = 32
	MaxLabelBytes    = 128
	MaxSecretBytes   = 16 << 10
)

// GrantType names how a credential gets its tokens.
type GrantType string

// The grants.
const (
	GrantClientCredentials GrantType = "client_credentials" // RFC 6749 §4.4
	GrantRefreshToken      GrantType = "refresh_token"      // RFC 6749 §6: a refresh token that was obtained elsewhere
	GrantAuthorizationCode GrantType = "authorization_code" // RFC 6749 §4.1 with PKCE (RFC 7636); then as refresh_token
	GrantDeviceCode        GrantType = "device_code"        // RFC 8628; then as refresh_token
	GrantJWTBearer         GrantType = "jwt_bearer"         // RFC 7523 §2.1: a signed assertion for an access token
	GrantSelfSignedJWT     GrantType = "self_signed_jwt"    // AIP-4111: the signed assertion is the access token
	GrantTokenExchange     GrantType = "token_exchange"     // RFC 8693
	GrantGoogleADC         GrantType = "google_adc"         // the ambient credentials of the machine (AIP-4110)
	GrantStatic            GrantType = "static"             // a bearer token or API key, rotated by hand
	GrantPassword          GrantType = "password"           // RFC 6749 §4.3, which RFC 9700 §2.4 forbids where there is another way
)

// Refreshes reports whether the grant lives on a refresh token, at least once it has been consented to.
func (g GrantType) Refreshes() bool {
	switch g {
	case GrantRefreshToken, GrantAuthorizationCode, GrantDeviceCode, GrantPassword:
		return true
	case GrantClientCredentials, GrantJWTBearer, GrantSelfSignedJWT, GrantTokenExchange, GrantGoogleADC, GrantStatic:
	}
	return false
}

// Consents reports whether a person consents in a browser before the grant has anything to live on.
func (g GrantType) Consents() bool { return g == GrantAuthorizationCode || g == GrantDeviceCode }

// ExtraScopes says what becomes of a token that has scopes which nobody asked for.
type ExtraScopes string

// What becomes of it.
const (
	ExtraScopesJudge ExtraScopes = ""      // they are judged as if they had been asked for
	ExtraScopesAllow ExtraScopes = "allow" // whoever may have the scopes that were asked for gets it
)

// Keeps says what the grant is created with and lives on, besides its OAuth client: what an operator gives by create or import.
func (g GrantType) Keeps() Holding {
	switch g {
	case GrantRefreshToken, GrantAuthorizationCode, GrantDeviceCode:
		return HoldsRefreshToken
	case GrantStatic:
		return HoldsToken
	case GrantPassword:
		return HoldsPassword
	case GrantTokenExchange:
		return HoldsSubjectToken
	case GrantClientCredentials, GrantJWTBearer, GrantSelfSignedJWT, GrantGoogleADC:
	}
	return HoldsNothing
}

// Clientless reports whether the grant needs no OAuth client at all.
func (g GrantType) Clientless() bool { return g == GrantStatic || g == GrantGoogleADC }

// AuthMethod names how a client authenticates at the token endpoint, in the words of RFC 7591 §2.
type AuthMethod string

// The client authentication methods.
const (
	AuthClientSecretBasic AuthMethod = "client_secret_basic" // id and secret form-encoded, then Basic (RFC 6749 §2.3.1)
	AuthClientSecretPost  AuthMethod = "client_secret_post"  // id and secret in the body
	AuthNone              AuthMethod = "none"                // a public client: client_id in the body
	AuthClientSecretJWT   AuthMethod = "client_secret_jwt"   // an assertion under the secret (RFC 7523 §2.2)
	AuthPrivateKeyJWT     AuthMethod = "private_key_jwt"     // an assertion under a private key (RFC 7523 §2.2)
	AuthTLSClientAuth     AuthMethod = "tls_client_auth"     // a certificate on the connection (RFC 8705 §2.1), client_id in the body
	AuthServiceAccount    AuthMethod = "service_account"     // no client authentication: the assertion of the grant speaks for it (RFC 7523 §2.1)
)

// Public reports whether a client of this method has nothing to authenticate with.
func (m AuthMethod) Public() bool { return m == AuthNone }

// Kind says what a client of this method authenticates with; "" for a public one.
func (m AuthMethod) Kind() SecretKind {
	switch m {
	case AuthClientSecretBasic, AuthClientSecretPost, AuthClientSecretJWT:
		return KindSecret
	case AuthPrivateKeyJWT, AuthServiceAccount:
		return KindKey
	case AuthTLSClientAuth:
		return KindCertificate
	case AuthNone:
	}
	return ""
}

// Credential is what an operator configures: a named grant. It holds no secret; the refresh token is in [Grant].
type Credential struct {
	Name       string            // see ValidateName
	UID        string            // made anew with each create, so that a re-created name is another credential
	Provider   string            // name of a configured provider
	Client     string            // name of an OAuthClient of the same provider
	Grant      GrantType         // how tokens are obtained
	Scopes     []string          // scopes of the grant, asked for by default
	Subject    string            // default subject, "" for none
	Audience   string            // default audience, "" for none
	Resources  []string          // resource indicators (RFC 8707), absolute URIs without fragment; sent with every request
	Parameters map[string]string // further form fields of token requests, none of the protocol's own; never a secret
	Source     string            // GrantTokenExchange: the credential whose access token is the subject token; "" = the grant holds one
	Labels     map[string]string // free, for operators
	Owner      string            // whom to ask, free text
	Extra      ExtraScopes       // what to do with scopes that nobody asked for
	Disabled   bool              // no token is handed out or fetched
	Created    time.Time
	Updated    time.Time
	Version    uint64     // rises with each edit; the etag
	Generation Generation // of creation, or of the last edit that changed what tokens are asked for; tokens before it are not served
}

// Variant returns the variant that a request for the given parts names: what is empty is taken from the credential.
func (c Credential) Variant(scopes []string, subject, audience string) Variant {
	if len(scopes) == 0 {
		scopes = c.Scopes
	}
	if subject == "" {
		subject = c.Subject
	}
	if audience == "" {
		audience = c.Audience
	}
	return NewVariant(scopes, subject, audience)
}

// SecretKind says what a [ClientSecret] is.
type SecretKind string

// The kinds of secrets.
const (
	KindSecret      SecretKind = "secret"      // a client secret
	KindKey         SecretKind = "key"         // a private key that signs assertions
	KindCertificate SecretKind = "certificate" // a private key with its certificate chain
)

// ClientSecret is one secret, key or certificate of an OAuth client. Several may be live while one is being rotated.
type ClientSecret struct {
	ID          string     // made by the broker
	Kind        SecretKind // "" = KindSecret
	Secret      Secret     // the secret; of a key or certificate the private key, PKCS#8 in PEM
	Fingerprint string     // tells the secrets of a client apart; says nothing of a secret. Of a key: SHA-256 of its public half (RFC 7638)
	KeyID       string     // of a key: kid, e.g. private_key_id of a Google key file; "" = none
	Algorithm   string     // of a key or certificate: JWS algorithm (RFC 7518 §3.1)
	Certificate string     // of a certificate: the chain in PEM, leaf first
	Added       time.Time
	Expiry      time.Time     // when it stops working, if that is known; of a certificate NotAfter. Zero = not known
	RotateAfter time.Duration // how long after Added it is to be replaced, by the operator's own rule; 0 = none
}

// Due is when a secret is to be replaced: its expiry, or the operator's own rule if that is earlier; zero = never.
func (s ClientSecret) Due() time.Time {
	if s.RotateAfter <= 0 {
		return s.Expiry
	}
	if rotate := s.Added.Add(s.RotateAfter); s.Expiry.IsZero() || rotate.Before(s.Expiry) {
		return rotate
	}
	return s.Expiry
}

// OAuthClient is what the broker authenticates as at a provider.
type OAuthClient struct {
	Name     string
	UID      string
	Provider string
	ClientID string
	Auth     AuthMethod
	Secrets  []ClientSecret // in the order they were added; none for a public client
	Account  string         // AuthServiceAccount: what the key file says besides, e.g. the numeric client id of a Google service account; "" = nothing
	Labels   map[string]string
	Created  time.Time
	Updated  time.Time
	Version  uint64 // the etag
}

// ValidateName checks the name of a credential or an OAuth client.
func ValidateName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("name is empty")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("name has %d bytes, at most %d are allowed", len(name), MaxNameBytes)
	case !segmented(name):
		return fmt.Errorf("name must be segments of [a-z0-9][a-z0-9._-]* joined by '/', e.g. google/reports-drive")
	}
	return nil
}

// segmented reports whether a name has the form [a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*. Every call is asked this, and a regular
// expression would be its dearest part.
func segmented(name string) bool {
	first := true // of a segment
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			first = false
		case first:
			return false
		case c == '/':
			first = true
		case c != '.' && c != '_' && c != '-':
			return false
		}
	}
	return !first
}

// scopeToken reports whether s is a scope-token of RFC 6749 §3.3.
func scopeToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// ValidateScopes checks a list of scopes (RFC 6749 §3.3).
func ValidateScopes(scopes []string) error {
	if len(scopes) > MaxScopes {
		return fmt.Errorf("%d scopes, at most %d are allowed", len(scopes), MaxScopes)
	}
	i := slices.IndexFunc(scopes, func(s string) bool { return len(s) > MaxScopeBytes || !scopeToken(s) })
	if i >= 0 {
		return fmt.Errorf("scope %d must be 1 to %d printable ASCII characters without blank, quote or backslash; give each scope as an item of its own",
			i+1, MaxScopeBytes)
	}
	return nil
}

// ValidateSubject checks a subject.
func ValidateSubject(subject string) error { return validateText("subject", subject, MaxSubjectBytes) }

// ValidateAudience checks an audience.
func ValidateAudience(audience string) error {
	return validateText("audience", audience, MaxAudienceBytes)
}

// ValidateLabels checks labels.
func ValidateLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("%d labels, at most %d are allowed", len(labels), MaxLabels)
	}
	for k, v := range labels {
		if k == "" {
			return fmt.Errorf("a label has no key")
		}
		if err := validateText("label", k+v, MaxLabelBytes); err != nil {
			return err
		}
	}
	return nil
}

func validateText(what, s string, most int) error {
	switch {
	case len(s) > most:
		return fmt.Errorf("%s has %d bytes, at most %d are allowed", what, len(s), most)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s is not valid UTF-8", what)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("%s contains a control character", what)
	}
	return nil
}
