package sandbox

import (
	"cmp"
	"slices"
	"time"
)

// AuthMethod is how a client authenticates at the token endpoint, in the words of RFC 7591 §2.
type AuthMethod string

// The client authentication methods.
const (
	AuthBasic AuthMethod = "client_secret_basic" // id and secret form-encoded, then Basic (RFC 6749 §2.3.1)
	AuthPost  AuthMethod = "client_secret_post"  // client_id and client_secret in the body
	AuthNone  AuthMethod = "none"                // a public client: client_id in the body

	AuthSecretJWT     AuthMethod = "client_secret_jwt"           // an assertion, HMAC with the secret (RFC 7523 §2.2)
	AuthPrivateKeyJWT AuthMethod = "private_key_jwt"             // an assertion, signed with a key in Client.Keys
	AuthTLS           AuthMethod = "tls_client_auth"             // a certificate with Client.TLSSubject (RFC 8705 §2.1)
	AuthSelfSignedTLS AuthMethod = "self_signed_tls_client_auth" // a certificate with Client.TLSThumbprint (RFC 8705 §2.2)
)

// AssertionAudience says what the aud of a client's assertion has to be.
type AssertionAudience string

// The audiences of client assertions.
const (
	AudienceToken  AssertionAudience = "token_endpoint" // the token endpoint's URL, whatever endpoint is called (RFC 7523 §3)
	AudienceIssuer AssertionAudience = "issuer"         // the issuer identifier, as rfc7523bis asks
	AudienceEither AssertionAudience = "either"
)

// Rotation says what becomes of a refresh token when it is used.
type Rotation string

// The kinds of rotation.
const (
	RotateStrict Rotation = "strict" // each use brings a new one; any replay revokes the family
	RotateGrace  Rotation = "grace"  // as strict, but the previous one is forgiven for Issuer.Grace
	RotateNone   Rotation = "none"   // it stays as it is, replies name none
)

// The grants of the token endpoint.
const (
	GrantClientCredentials = "client_credentials"                              // RFC 6749 §4.4
	GrantRefreshToken      = "refresh_token"                                   // RFC 6749 §6
	GrantAuthorizationCode = "authorization_code"                              // RFC 6749 §4.1 with RFC 7636
	GrantPassword          = "password"                                        // RFC 6749 §4.3; only for clients whose Grants name it
	GrantDeviceCode        = "urn:ietf:params:oauth:grant-type:device_code"    // RFC 8628
	GrantJWTBearer         = "urn:ietf:params:oauth:grant-type:jwt-bearer"     // RFC 7523 §2.1
	GrantTokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange" // RFC 8693
)

const (
	defaultAccessLife     = time.Hour
	defaultCodeLife       = time.Minute
	defaultDeviceLife     = 10 * time.Minute
	defaultDeviceInterval = 5 * time.Second
	defaultLeeway         = 5 * time.Minute
	defaultJournalSize    = 10_000
)

// Config is what a server is made of.
type Config struct {
	Issuers     []Issuer `yaml:"issuers"`      // at least one
	JournalSize int      `yaml:"journal_size"` // entries that Journal keeps, the newest ones; 0 = 10,000. Counts are exact regardless
	AllowHTTP   bool     `yaml:"allow_http"`   // also answer requests that did not come over TLS
	Seed        uint64   `yaml:"seed"`         // of what Fault.Chance and Fault.DelayTo draw
}

// Issuer is one authorization server with its policy.
type Issuer struct {
	Name    string   `yaml:"name"`    // path segment, [a-z0-9][a-z0-9-]*
	Clients []Client `yaml:"clients"` // who may ask

	AccessLife  time.Duration `yaml:"access_life"`  // life of access tokens, whole seconds; 0 = one hour
	RefreshLife time.Duration `yaml:"refresh_life"` // a refresh token not used for this long dies; 0 = never
	Rotation    Rotation      `yaml:"rotation"`     // "" = RotateStrict

	// Grace is for how long after its first use a refresh token is forgiven under RotateGrace. Only the immediately
	// previous one is: as soon as its successor was used, a replay revokes the family. A forgiven replay brings a new
	// token in place of the successor, which a client that lost the answer can't hold; if that one is used all the same,
	// the family is revoked. The window counts from the first use, replays do not prolong it.
	Grace time.Duration `yaml:"grace"`

	KillsOld        bool     `yaml:"kills_old"`        // a refresh ends the access tokens that the family had before
	Downscope       bool     `yaml:"downscope"`        // a refresh may ask for fewer scopes than were granted; otherwise only for all of them or none
	ScopesSupported []string `yaml:"scopes_supported"` // any other is refused; empty = every well-formed scope

	// URL is the issuer identifier. "" = scheme and host of each request and the name: https://host/name.
	URL string `yaml:"url"`

	// Accounts are the people who can consent; nil = one, DefaultAccount.
	Accounts []Account `yaml:"accounts"`
	// AutoApprove is the account that consents to everything at once, without a page; "" = somebody has to.
	AutoApprove string `yaml:"auto_approve"`

	CodeLife       time.Duration `yaml:"code_life"`       // of authorization codes; 0 = one minute
	DeviceLife     time.Duration `yaml:"device_life"`     // of device codes; 0 = ten minutes
	DeviceInterval time.Duration `yaml:"device_interval"` // between polls, whole seconds; 0 = five seconds

	JWTAccess bool     `yaml:"jwt_access"` // access tokens are JWTs (RFC 9068), signed with the key in jwks; they can't begin with AccessPrefix
	Resources []string `yaml:"resources"`  // values that resource (RFC 8707) and audience (RFC 8693) may have; empty = any

	ServiceAccounts   []ServiceAccount  `yaml:"service_accounts"`   // who may use GrantJWTBearer as Google has it
	TrustedIssuers    []TrustedIssuer   `yaml:"trusted_issuers"`    // whose JWTs may be exchanged
	AnonymousExchange bool              `yaml:"anonymous_exchange"` // GrantTokenExchange needs no client, and takes none, as at GCP's STS
	JWTAudience       string            `yaml:"jwt_audience"`       // what the aud of a GrantJWTBearer assertion has to be; "" = the token endpoint's URL
	ClientAudience    AssertionAudience `yaml:"client_audience"`    // "" = AudienceToken
	Leeway            time.Duration     `yaml:"leeway"`             // how far the clock of one who signs an assertion may be off; 0 = five minutes
}

// Client is a registered OAuth client.
type Client struct {
	ID      string     `yaml:"id"`
	Secrets []string   `yaml:"secrets"` // all of them work; none for a public client
	Auth    AuthMethod `yaml:"auth"`    // enforced exactly; "" = AuthBasic
	Grants  []string   `yaml:"grants"`  // grants it may use; nil = all that its kind of client may
	Scopes  []string   `yaml:"scopes"`  // scopes that it may ask for and gets by default; nil = those of the issuer

	RedirectURIs  []string `yaml:"redirect_uris"`  // compared exactly, but for the port of a loopback address (RFC 8252 §7.3)
	PKCEOptional  bool     `yaml:"pkce_optional"`  // a confidential client may leave PKCE out
	Introspects   bool     `yaml:"introspects"`    // may introspect the tokens of others, too
	Keys          []Key    `yaml:"keys"`           // for AuthPrivateKeyJWT, and for GrantJWTBearer with iss = the client's id
	TLSSubject    string   `yaml:"tls_subject"`    // for AuthTLS: the subject of its certificate as RFC 4514 writes it, e.g. "CN=reports,O=Acme"
	TLSThumbprint string   `yaml:"tls_thumbprint"` // for AuthSelfSignedTLS: SHA-256 of the certificate's SPKI in hex, see SPKIThumbprint
}

func (c Config) withDefaults() Config {
	c.JournalSize = cmp.Or(c.JournalSize, defaultJournalSize)
	c.Issuers = slices.Clone(c.Issuers)
	for i := range c.Issuers {
		iss := &c.Issuers[i]
		iss.AccessLife = cmp.Or(iss.AccessLife, defaultAccessLife)
		iss.Rotation = cmp.Or(iss.Rotation, RotateStrict)
		iss.CodeLife = cmp.Or(iss.CodeLife, defaultCodeLife)
		iss.DeviceLife = cmp.Or(iss.DeviceLife, defaultDeviceLife)
		iss.DeviceInterval = cmp.Or(iss.DeviceInterval, defaultDeviceInterval)
		iss.Leeway = cmp.Or(iss.Leeway, defaultLeeway)
		iss.ClientAudience = cmp.Or(iss.ClientAudience, AudienceToken)
		if iss.Accounts == nil {
			iss.Accounts = []Account{DefaultAccount()}
		}
		iss.Clients = slices.Clone(iss.Clients)
		for j := range iss.Clients {
			iss.Clients[j].Auth = cmp.Or(iss.Clients[j].Auth, AuthBasic)
		}
	}
	return c
}
