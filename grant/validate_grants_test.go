package grant_test

import (
	"crypto/elliptic"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

// objection is what an operator is told of a credential that can't work, before anything is sent.
type objection struct {
	name    string
	profile provider.Profile
	grant   tokenbroker.GrantType
	cred    func(*tokenbroker.Credential)
	client  func(*tokenbroker.OAuthClient)
	none    bool   // there is no client
	field   string // "" = all is well
	say     string // what has to be said
}

func objections() []objection {
	google := google()
	scopes := func(s ...string) func(*tokenbroker.Credential) {
		return func(c *tokenbroker.Credential) { c.Scopes = s }
	}
	subject := func(s string) func(*tokenbroker.Credential) { return func(c *tokenbroker.Credential) { c.Subject = s } }
	audience := func(s string) func(*tokenbroker.Credential) {
		return func(c *tokenbroker.Credential) { c.Scopes, c.Audience = nil, s }
	}
	resources := func(s ...string) func(*tokenbroker.Credential) {
		return func(c *tokenbroker.Credential) { c.Resources = s }
	}
	parameter := func(name, value string) func(*tokenbroker.Credential) {
		return func(c *tokenbroker.Credential) { c.Parameters = map[string]string{name: value} }
	}
	robot := func(change func(*tokenbroker.ClientSecret)) func(*tokenbroker.OAuthClient) {
		return func(c *tokenbroker.OAuthClient) {
			c.Auth = tokenbroker.AuthServiceAccount
			key := tokenbroker.ClientSecret{Kind: tokenbroker.KindKey, Secret: tokenbroker.NewSecret("x"), KeyID: "k", Algorithm: "RS256"}
			if change != nil {
				change(&key)
			}
			c.Secrets = []tokenbroker.ClientSecret{key}
		}
	}
	public := func(c *tokenbroker.OAuthClient) { c.Auth, c.Secrets = tokenbroker.AuthNone, nil }
	method := func(m tokenbroker.AuthMethod) func(*tokenbroker.OAuthClient) {
		return func(c *tokenbroker.OAuthClient) { c.Auth = m }
	}
	cc, jb, self := tokenbroker.GrantClientCredentials, tokenbroker.GrantJWTBearer, tokenbroker.GrantSelfSignedJWT
	code, adc, pw := tokenbroker.GrantAuthorizationCode, tokenbroker.GrantGoogleADC, tokenbroker.GrantPassword
	withPassword := provider.Profile{Grants: []tokenbroker.GrantType{pw}}
	noPKCE := consenting(code)
	noPKCE.PKCE = "off"
	return []objection{
		{name: "a service account", profile: google, grant: jb, client: robot(nil)},
		{name: "a service account for a user", profile: google, grant: jb, cred: subject("ann@example.com"), client: robot(nil)},
		{name: "a service account without scopes", profile: google, grant: jb, cred: scopes(), client: robot(nil), field: "spec.scopes", say: "at least one scope"},
		{name: "a service account with a comma in a scope", profile: google, grant: jb, cred: scopes("a,b"), client: robot(nil), field: "spec.scopes", say: `["a" "b"]`},
		{name: "a service account with a blank in a scope", profile: google, grant: jb, cred: scopes("a b"), client: robot(nil), field: "spec.scopes", say: "item of its own"},
		{name: "a service account without key", profile: google, grant: jb, client: func(c *tokenbroker.OAuthClient) { robot(nil)(c); c.Secrets = nil },
			field: "spec.oauthClient", say: "import the key file"},
		{name: "a service account with an EC key", profile: google, grant: jb, client: robot(func(k *tokenbroker.ClientSecret) { k.Algorithm = "ES256" }),
			field: "spec.oauthClient", say: "RS256 alone"},
		{name: "a service account by client credentials", grant: cc, client: robot(nil), field: "spec.oauthClient", say: "nothing to show"},
		{name: "an assertion for a user", grant: jb, cred: subject("ann"), client: robot(nil)},
		{name: "an assertion for nobody", grant: jb, client: robot(nil), field: "spec.subject", say: "as subject"},
		{name: "an assertion of a public client", grant: jb, cred: subject("ann"), client: public, field: "spec.oauthClient", say: "public"},
		{name: "an assertion of a client with a secret alone", grant: jb, cred: subject("ann"), field: "spec.oauthClient", say: "has no key"},
		{name: "a self-signed JWT", profile: google, grant: self, cred: audience(pubsub), client: robot(nil)},
		{name: "a self-signed JWT for scopes", profile: google, grant: self, client: robot(nil)},
		{name: "a self-signed JWT for a user", profile: google, grant: self, cred: func(c *tokenbroker.Credential) { audience(pubsub)(c); c.Subject = "ann" }, client: robot(nil),
			field: "spec.subject", say: "jwt_bearer"},
		{name: "a self-signed JWT for nothing", profile: google, grant: self, cred: audience(""), client: robot(nil), field: "spec.audience", say: "https://pubsub.googleapis.com/"},
		{name: "a self-signed JWT for both", profile: google, grant: self, cred: func(c *tokenbroker.Credential) { c.Audience = pubsub }, client: robot(nil),
			field: "spec.audience", say: "not both"},
		{name: "a self-signed JWT for no endpoint", profile: google, grant: self, cred: audience("https://pubsub.googleapis.com"), client: robot(nil),
			field: "spec.audience", say: `ends in "/"`},
		{name: "a self-signed JWT without key id", profile: google, grant: self, cred: audience(pubsub), client: robot(func(k *tokenbroker.ClientSecret) { k.KeyID = "" }),
			field: "spec.oauthClient", say: "private_key_id"},
		{name: "a self-signed JWT of another client", grant: self, cred: audience(pubsub), client: func(c *tokenbroker.OAuthClient) {
			robot(nil)(c)
			c.Auth = tokenbroker.AuthPrivateKeyJWT
		}, field: "spec.oauthClient", say: "service_account"},
		{name: "ambient credentials", profile: google, grant: adc, none: true},
		{name: "ambient credentials with a client", profile: google, grant: adc, field: "spec.oauthClient", say: "leave it out"},
		{name: "ambient credentials elsewhere", grant: adc, none: true, field: "spec.grantType", say: "is not Google"},
		{name: "a static token", grant: tokenbroker.GrantStatic, none: true},
		{name: "a static token for a subject", grant: tokenbroker.GrantStatic, none: true, cred: subject("ann"), field: "spec.subject", say: "can't name a subject"},
		{name: "a password", profile: withPassword, grant: pw, cred: subject("ann")},
		{name: "a password of nobody", profile: withPassword, grant: pw, field: "spec.subject", say: "user's name"},
		{name: "a password where nobody named it", grant: pw, cred: subject("ann"), field: "spec.grantType", say: "RFC 9700"},
		{name: "a grant that the provider has not", profile: withPassword, grant: cc, field: "spec.grantType", say: "password"},
		{name: "a consent", profile: consenting(code), grant: code, client: public},
		{name: "a consent of a public client without PKCE", profile: noPKCE, grant: code, client: public, field: "spec.oauthClient", say: "pkce: off"},
		{name: "a consent of a confidential client without PKCE", profile: noPKCE, grant: code},
		{name: "a client that needs a key and has a secret", grant: cc, client: method(tokenbroker.AuthPrivateKeyJWT), field: "spec.oauthClient", say: "has no key"},
		{name: "a client that needs a certificate and has a secret", grant: cc, client: method(tokenbroker.AuthTLSClientAuth), field: "spec.oauthClient", say: "has no certificate"},
		{name: "resources", grant: cc, cred: resources("https://a.example.com/x?y=1", "urn:example:a")},
		{name: "a resource that is not absolute", grant: cc, cred: resources("/x"), field: "spec.resources", say: "absolute URI"},
		{name: "a resource with a fragment", grant: cc, cred: resources("https://a.example.com/#"), field: "spec.resources", say: "fragment"},
		{name: "far too many resources", grant: cc, cred: resources(slices.Repeat([]string{"https://a.example.com/"}, 17)...), field: "spec.resources", say: "at most 16"},
		{name: "a parameter", grant: cc, cred: parameter("tenant", "7")},
		{name: "a parameter of the protocol", grant: cc, cred: parameter("Scope", "a"), field: "spec.parameters", say: "written by the broker"},
		{name: "a parameter that is a secret", grant: cc, cred: parameter("app_secret", "x"), field: "spec.parameters", say: "looks like a secret"},
		{name: "a parameter with a blank name", grant: cc, cred: parameter("a b", "x"), field: "spec.parameters", say: "without blanks"},
		{name: "a parameter with a line break", grant: cc, cred: parameter("a", "x\n"), field: "spec.parameters", say: "printable"},
	}
}

func TestWhatAnOperatorHearsOfEachGrant(t *testing.T) {
	for _, o := range objections() {
		t.Run(o.name, func(t *testing.T) {
			c, _ := recording(t, o.profile)
			r := ccRequest("a")
			r.Credential.Grant = o.grant
			r.Client.Secrets = []tokenbroker.ClientSecret{{Secret: tokenbroker.NewSecret(secretCanary)}}
			if o.cred != nil {
				o.cred(&r.Credential)
			}
			if o.client != nil {
				o.client(&r.Client)
			}
			client := &r.Client
			if o.none {
				client, r.Credential.Client = nil, ""
			}
			err := c.Validate(r.Credential, client)
			var want []string
			if o.field != "" {
				want = []string{o.field}
			}
			if got := slices.Compact(fieldsOf(t, err)); !slices.Equal(got, want) {
				t.Fatalf("got %v (%v), want %v", got, err, want)
			}
			if err != nil && !strings.Contains(err.Error(), o.say) {
				t.Errorf("got %v, want it to say %q", err, o.say)
			}
		})
	}
}

func TestClientsWithSecretsOfTheWrongKind(t *testing.T) {
	c, _ := recording(t, provider.Profile{})
	noAssertions, _ := recording(t, provider.Profile{Grants: []tokenbroker.GrantType{tokenbroker.GrantClientCredentials}})
	key := parsed(t, c, serviceAccount(t)).Secret
	p256 := ecKey(t, elliptic.P256())
	chain, _ := certify(t, p256, nil)
	cert := parsed(t, c, chain+sec1(t, p256)).Secret
	text := tokenbroker.ClientSecret{Secret: tokenbroker.NewSecret(secretCanary)}
	long := tokenbroker.ClientSecret{Secret: tokenbroker.NewSecret(strings.Repeat("x", 32))}
	junk := key
	junk.Secret = tokenbroker.NewSecret(secretCanary)
	for _, tt := range []struct {
		name   string
		c      *grant.Client
		method tokenbroker.AuthMethod
		secret tokenbroker.ClientSecret
		field  string
		say    string
	}{
		{"a key that signs", c, tokenbroker.AuthPrivateKeyJWT, key, "", ""},
		{"a certificate's key that signs", c, tokenbroker.AuthPrivateKeyJWT, cert, "", ""},
		{"a certificate that is shown", c, tokenbroker.AuthTLSClientAuth, cert, "", ""},
		{"a service account's key", c, tokenbroker.AuthServiceAccount, key, "", ""},
		{"a long secret that signs", c, tokenbroker.AuthClientSecretJWT, long, "", ""},
		{"a key for assertions beside a secret", c, tokenbroker.AuthClientSecretPost, key, "", ""},
		{"a key where there are no assertions", noAssertions, tokenbroker.AuthClientSecretPost, key, "secret", "private_key_jwt"},
		{"a short secret that is to sign", c, tokenbroker.AuthClientSecretJWT, text, "secret", "needs 32"},
		{"a secret in place of a key", c, tokenbroker.AuthPrivateKeyJWT, text, "secret", "private key"},
		{"a secret in place of a certificate", c, tokenbroker.AuthTLSClientAuth, text, "secret", "private key"},
		{"a key without certificate", c, tokenbroker.AuthTLSClientAuth, key, "certificate", "together with its key"},
		{"a key that is none", c, tokenbroker.AuthPrivateKeyJWT, junk, "privateKey", "anew"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := ccRequest().Client
			client.Auth, client.Secrets = tt.method, []tokenbroker.ClientSecret{tt.secret}
			err := tt.c.ValidateClient(client)
			if tt.field == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if got := fieldsOf(t, err); !slices.Equal(got, []string{tt.field}) || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("got %v (%v), want %s and %q", got, err, tt.field, tt.say)
			}
		})
	}
}

func TestAdvice(t *testing.T) {
	stays, _ := recording(t, provider.Profile{Rotates: new(false), Grants: []tokenbroker.GrantType{tokenbroker.GrantRefreshToken, tokenbroker.GrantPassword,
		tokenbroker.GrantStatic, tokenbroker.GrantSelfSignedJWT, tokenbroker.GrantGoogleADC, tokenbroker.GrantClientCredentials}})
	rotates, _ := recording(t, provider.Profile{})
	public := &tokenbroker.OAuthClient{Name: "acme/app", Auth: tokenbroker.AuthNone}
	soon := &tokenbroker.OAuthClient{Name: "acme/app", Auth: tokenbroker.AuthPrivateKeyJWT, Secrets: []tokenbroker.ClientSecret{
		{Kind: tokenbroker.KindKey, Fingerprint: "f1", Expiry: time.Now().Add(24 * time.Hour)},
		{Kind: tokenbroker.KindKey, Fingerprint: "f2", Added: time.Now(), RotateAfter: 90 * 24 * time.Hour},
		{Kind: tokenbroker.KindKey, Fingerprint: "f3"},
	}}
	for _, tt := range []struct {
		name   string
		c      *grant.Client
		grant  tokenbroker.GrantType
		client *tokenbroker.OAuthClient
		want   []string // a part of each sentence
	}{
		{"a refresh token of a public client that stays", stays, tokenbroker.GrantRefreshToken, public, []string{"does not rotate"}},
		{"a refresh token of a public client that rotates", rotates, tokenbroker.GrantRefreshToken, public, nil},
		{"a password", stays, tokenbroker.GrantPassword, nil, []string{"RFC 9700"}},
		{"a static token", stays, tokenbroker.GrantStatic, nil, []string{"does not renew itself"}},
		{"a self-signed JWT", stays, tokenbroker.GrantSelfSignedJWT, nil, []string{"can't be revoked"}},
		{"ambient credentials", stays, tokenbroker.GrantGoogleADC, nil, []string{"whatever identity"}},
		{"a key near its end", stays, tokenbroker.GrantClientCredentials, soon, []string{"key f1"}},
		{"nothing", stays, tokenbroker.GrantClientCredentials, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.c.Advise(tokenbroker.Credential{Provider: "acme", Grant: tt.grant}, tt.client)
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("got %q, want it to say %q", got[i], tt.want[i])
				}
			}
		})
	}
	if got := stays.Advise(tokenbroker.Credential{Provider: "nobody"}, nil); got != nil {
		t.Errorf("got %q of an unknown provider", got)
	}
}
