package tokenbroker

import "time"

// ExchangeRequest is one token request, to be sent at most once.
type ExchangeRequest struct {
	Credential   Credential   // grant type, provider and scopes of the grant
	Client       OAuthClient  // whom to authenticate as; its Secrets are not looked at
	Secret       ClientSecret // the one to authenticate with; zero for a public client
	Variant      Variant      // what to ask for; empty parts are taken from the credential
	RefreshToken Secret       // what the grant lives on, see Holds; zero for grants that have nothing of the kind
	Holds        Holding      // what RefreshToken is
	RefreshEnd   time.Time    // when that dies, if it is known; of a static token its expiry
}

// ExchangeReply is what a token request brought. It may hold a refresh token though the exchange as a whole failed: that
// one is to be stored before anything else is done, because the one that was sent may be spent.
type ExchangeReply struct {
	Token        *Token        // nil if the reply held none that can be served; Generation is 0
	RefreshToken Secret        // a plausible new refresh token; zero if the reply named none, so the old one stays
	RefreshEnd   time.Time     // when the refresh token dies, if the reply said so; zero = it did not
	Sent         time.Time     // when the request was sent, with a monotonic reading; lives count from here
	Account      string        // whose account the grant is, if the reply or the profile's own look-up says so
	Granted      []string      // scopes that the reply names; nil if it names none
	Skew         time.Duration // how far our clock is ahead of the provider's, by its Date header; 0 = not known, or it is not
}

// NewKey is a private key as an operator brings it.
type NewKey struct {
	Text        Secret // PEM, JWK or a provider's key file
	Certificate string // its certificate chain in PEM, leaf first; "" = none, or it is in Text
	KeyID       string // kid to name it by; "" = what Text says
	Provider    string // whose key it is to be: a token endpoint that Text names must be there; "" = that is not looked at
}

// ParsedKey is what a [NewKey] holds.
type ParsedKey struct {
	Secret   ClientSecret // without ID and times but Expiry
	ClientID string       // whose key it is, where Text says so; "" = it does not
	Account  string       // what Text says besides, e.g. the numeric client id of a Google service account; "" = nothing
	TokenURI string       // the token endpoint that Text names; "" = none. Nothing is sent there: the provider's profile says where to
}

// AuthorizationRequest is the first leg of an authorization code grant (RFC 6749 §4.1.1, RFC 7636 §4.3).
type AuthorizationRequest struct {
	Credential  Credential
	Client      OAuthClient
	Scopes      []string // empty = the credential's
	RedirectURI string
	State       string
	Nonce       string // for an id_token, if the profile asks for one
	Verifier    Secret // PKCE; only its S256 challenge is sent
	LoginHint   string // account to suggest, "" for none
}

// CodeRequest redeems an authorization code (RFC 6749 §4.1.3). It is sent at most once.
type CodeRequest struct {
	Credential  Credential
	Client      OAuthClient
	Secret      ClientSecret // zero for a public client
	Scopes      []string     // that were asked for
	Code        Secret
	Verifier    Secret
	RedirectURI string // the same as in the first leg
	Nonce       string
}

// DeviceRequest asks for a device code (RFC 8628 §3.1).
type DeviceRequest struct {
	Credential Credential
	Client     OAuthClient
	Secret     ClientSecret
	Scopes     []string // empty = the credential's
}

// DeviceAuthorization is what a person needs to consent on another device (RFC 8628 §3.2).
type DeviceAuthorization struct {
	DeviceCode              Secret
	UserCode                string
	VerificationURI         string
	VerificationURIComplete string // "" if the provider gave none
	Expiry                  time.Time
	Interval                time.Duration // at least this long between polls
}

// DevicePoll asks whether a device code was consented to (RFC 8628 §3.4). While it was not, the failure's code is
// authorization_pending or slow_down; access_denied and expired_token end it.
type DevicePoll struct {
	Credential Credential
	Client     OAuthClient
	Secret     ClientSecret
	Scopes     []string // that were asked for
	DeviceCode Secret
}

// TokenKind names a kind of token, as token_type_hint of RFC 7009 §2.1 does.
type TokenKind string

// The kinds of tokens.
const (
	AccessTokenKind  TokenKind = "access_token"
	RefreshTokenKind TokenKind = "refresh_token"
)

// RevokeRequest ends a token at the provider (RFC 7009).
type RevokeRequest struct {
	Credential Credential
	Client     OAuthClient
	Secret     ClientSecret
	Token      Secret
	Kind       TokenKind
}

// CheckRequest asks what a resource server would say of an access token.
type CheckRequest struct {
	Credential Credential
	Client     OAuthClient
	Secret     ClientSecret
	Token      Token
}

// CheckMethod says how a token was judged.
type CheckMethod string

// The ways to judge a token, the best first.
const (
	CheckIntrospection CheckMethod = "introspection" // RFC 7662
	CheckJWT           CheckMethod = "jwt"           // locally, against the provider's keys (RFC 7519, RFC 9068)
	CheckTestCall      CheckMethod = "test_call"     // the profile's cheap call
	CheckNone          CheckMethod = "none"          // the provider offers no way
)

// CheckReply is the verdict on an access token. It holds nothing of the token.
type CheckReply struct {
	Method   CheckMethod
	Active   bool      // it is accepted; false with CheckNone means nothing
	Expiry   time.Time // as the provider sees it; zero = it did not say
	Scopes   []string  // nil = it did not say
	Audience []string
	Account  string        // subject or user name
	Code     string        // why not, e.g. http_401, expired, wrong_audience, bad_signature; "" if active
	Skew     time.Duration // how far our clock is ahead of the provider's; 0 = not known
}
