package provider_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

// with is a sound profile with a change.
func with(change func(*provider.Profile)) provider.Profile {
	p := provider.Profile{TokenEndpoint: endpoint}
	change(&p)
	return p
}

func TestNewRefusesWhatWouldSendAPersonOrASecretAstray(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    provider.Profile
		want string
	}{
		{"a refresh endpoint in the clear", with(func(p *provider.Profile) { p.RefreshEndpoint = "http://login.example.com/r" }), "refresh_endpoint: must be https"},
		{"an authorization endpoint on a private address", with(func(p *provider.Profile) { p.AuthorizationEndpoint = "https://10.0.0.1/a" }), "authorization_endpoint: 10.0.0.1 is a private address"},
		{"a device endpoint with a user", with(func(p *provider.Profile) { p.DeviceAuthorizationEndpoint = "https://me:pw@login.example.com/d" }), "device_authorization_endpoint: must not hold a user"},
		{"a revocation endpoint with a fragment", with(func(p *provider.Profile) { p.RevocationEndpoint = endpoint + "#x" }), "revocation_endpoint: must not have a fragment"},
		{"an introspection endpoint with a secret", with(func(p *provider.Profile) { p.IntrospectionEndpoint = endpoint + "?client_secret=s3cr3t" }), `introspection_endpoint: must not carry "client_secret"`},
		{"a userinfo endpoint for metadata", with(func(p *provider.Profile) { p.UserinfoEndpoint = "https://169.254.169.254/u" }), "userinfo_endpoint: 169.254.169.254 is a link-local"},
		{"a test endpoint on localhost", with(func(p *provider.Profile) { p.TestEndpoint = "https://localhost/me" }), "test_endpoint: 127.0.0.1 is a loopback"},
		{"keys from nowhere", with(func(p *provider.Profile) { p.JWKSURI = "keys.json" }), "jwks_uri: has no host"},
		{"a part that nobody declared", with(func(p *provider.Profile) { p.RevocationEndpoint = "https://login.example.com/{tenant}/revoke" }), "revocation_endpoint: names a part"},
		{"an issuer on a private address", with(func(p *provider.Profile) { p.Issuer = "https://10.0.0.1" }), "issuer: 10.0.0.1 is a private"},
		{"an issuer with an open part", with(func(p *provider.Profile) { p.Issuer = "https://login.example.com/{x}" }), "issuer: names a part"},

		{"the implicit grant", with(func(p *provider.Profile) { p.AuthorizationParams = map[string]string{"response_type": "token"} }), "implicit grant, RFC 9700 §2.1.2"},
		{"the implicit grant of OpenID Connect", with(func(p *provider.Profile) {
			p.AuthorizationParams = map[string]string{"response_type": "id_token token"}
		}), "tokens in URLs"},
		{"the hybrid flow", with(func(p *provider.Profile) { p.AuthorizationParams = map[string]string{"response_type": "code id_token"} }), "authorization_params: response_type"},
		{"the implicit grant in the URL", with(func(p *provider.Profile) { p.AuthorizationEndpoint = "https://login.example.com/a?Response_Type=token" }), "authorization_endpoint: response_type"},
		{"two response types in the URL", with(func(p *provider.Profile) {
			p.AuthorizationEndpoint = "https://login.example.com/a?response_type=code&response_type=token"
		}), "authorization_endpoint: response_type"},
		{"a state of one's own", with(func(p *provider.Profile) { p.AuthorizationParams = map[string]string{"State": "x"} }), `authorization_params: "State" is set by the broker`},
		{"a challenge of one's own", with(func(p *provider.Profile) { p.AuthorizationParams = map[string]string{"code_challenge": "x"} }), "authorization_params"},
		{"the scope parameter of one's own", with(func(p *provider.Profile) {
			p.ScopeParameter, p.AuthorizationParams = "user_scope", map[string]string{"user_scope": "x"}
		}), `authorization_params: "user_scope"`},
		{"a redirect in token requests", with(func(p *provider.Profile) { p.TokenParams = map[string]string{"redirect_uri": "https://x"} }), `token_params: "redirect_uri"`},
		{"a subject token of one's own", with(func(p *provider.Profile) { p.TokenParams = map[string]string{"subject_token": "x"} }), `token_params: "subject_token"`},
		{"scopes under the name of the state", with(func(p *provider.Profile) { p.ScopeParameter = "state" }), "scope_parameter"},

		{"a redirect to elsewhere", with(func(p *provider.Profile) { p.LoopbackRedirect = "http://example.com:{port}/" }), "loopback_redirect: must be on 127.0.0.1"},
		{"a redirect with TLS", with(func(p *provider.Profile) { p.LoopbackRedirect = "https://127.0.0.1:{port}/" }), "loopback_redirect: must be a plain http URL"},
		{"a redirect without a port", with(func(p *provider.Profile) { p.LoopbackRedirect = "http://127.0.0.1/callback" }), "loopback_redirect: must have a port"},
		{"a redirect with the port in its path", with(func(p *provider.Profile) { p.LoopbackRedirect = "http://127.0.0.1:80/{port}" }), "loopback_redirect: must have a port"},
		{"a redirect with a query", with(func(p *provider.Profile) { p.LoopbackRedirect = "http://127.0.0.1:{port}/?a=b" }), "loopback_redirect"},
		{"a redirect to a name that looks like loopback", with(func(p *provider.Profile) { p.LoopbackRedirect = "http://127.0.0.1.example.com:{port}/" }), "loopback_redirect"},

		{"another PKCE", with(func(p *provider.Profile) { p.PKCE = "plain" }), "pkce: must be s256 or off"},
		{"another way to revoke", with(func(p *provider.Profile) { p.RevocationStyle = "post" }), "revocation_style"},
		{"another body", with(func(p *provider.Profile) { p.BodyFormat = "xml" }), "body_format"},
		{"an unknown grant", with(func(p *provider.Profile) { p.Grants = []tokenbroker.GrantType{"implicit"} }), `grants[0]: unknown grant "implicit"`},
		{"a grant type for an unknown grant", with(func(p *provider.Profile) { p.GrantTypes = map[tokenbroker.GrantType]string{"x": "y"} }), "grant_types"},
		{"codes without an authorization endpoint", with(func(p *provider.Profile) { p.Grants = []tokenbroker.GrantType{"authorization_code"} }), "authorization_endpoint: missing"},
		{"device codes without an endpoint", with(func(p *provider.Profile) { p.Grants = []tokenbroker.GrantType{"device_code"} }), "device_authorization_endpoint: missing"},
		{"discovery without an issuer", with(func(p *provider.Profile) { p.Discover = new(true) }), "issuer: missing"},
		{"an audience without an issuer", with(func(p *provider.Profile) { p.AssertionAudience = "issuer" }), "issuer: missing"},
		{"an audience with a blank", with(func(p *provider.Profile) { p.GrantAudience = "a b" }), "grant_audience"},
		{"assertions for a day", with(func(p *provider.Profile) { p.AssertionLife = duration(24 * time.Hour) }), "assertion_life"},
		{"assertions that are over at once", with(func(p *provider.Profile) { p.AssertionLife = duration(0) }), "assertion_life"},
		{"an issuer of one's own in assertions", with(func(p *provider.Profile) { p.AssertionClaims = map[string]string{"iss": "x"} }), `assertion_claims: "iss"`},
		{"a key in the Host header", with(func(p *provider.Profile) { p.APIKeyHeader = "Host" }), "api_key_header"},
		{"a header with a line break", with(func(p *provider.Profile) { p.APIKeyHeader = "X\r\nY" }), "api_key_header"},
		{"an account that is a token", with(func(p *provider.Profile) { p.Account = []string{"userinfo.access_token"} }), "account[0]"},
		{"a scope with a blank", with(func(p *provider.Profile) { p.ConsentScopes = []string{"a b"} }), "consent_scopes"},
		{"a scope without a meaning", with(func(p *provider.Profile) { p.Scopes = []provider.ScopeInfo{{Name: "a"}} }), "scopes[0].meaning"},
		{"a meaning of two lines", with(func(p *provider.Profile) { p.Scopes = []provider.ScopeInfo{{Name: "a", Meaning: "b\nc"}} }), "scopes[0].meaning"},
		{"a scope twice", with(func(p *provider.Profile) {
			p.Scopes = []provider.ScopeInfo{{Name: "a", Meaning: "b"}, {Name: "a", Meaning: "c"}}
		}), "scopes[1].name"},
		{"a resource that is no beginning", with(func(p *provider.Profile) { p.ScopeResource = "https://api.example" }), "scope_resource"},
		{"a catch-all that is no end", with(func(p *provider.Profile) { p.CatchAllScope = "default" }), "catch_all_scope"},
		{"a catch-all of everything", with(func(p *provider.Profile) { p.CatchAllScope = "/" }), "catch_all_scope"},
		{"an alias of nothing", with(func(p *provider.Profile) { p.ScopeAliases = map[string]string{"email": ""} }), "scope_aliases"},
		{"a test environment of nothing", with(func(p *provider.Profile) { p.TestOf = "acme" }), "test_of"},
		{"a cause that has no entry", with(func(p *provider.Profile) {
			p.Errors = []provider.ErrorRule{{Code: "x", Class: tokenbroker.ClassTransient, Cause: "moon_phase"}}
		}), `errors[0].cause: "moon_phase"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := provider.New(map[string]provider.Profile{"acme": tt.p})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "me:pw") {
				t.Errorf("the error holds a secret: %q", err)
			}
		})
	}
}

func duration(d time.Duration) *provider.Duration {
	p := provider.Duration(d)
	return &p
}

func TestNewTakesWhatServersReallyHave(t *testing.T) {
	for name, p := range map[string]provider.Profile{
		"the response type that there is": with(func(p *provider.Profile) { p.AuthorizationParams = map[string]string{"response_type": "code"} }),
		"a query in an endpoint": with(func(p *provider.Profile) {
			p.AuthorizationEndpoint = "https://login.example.com/a?response_type=code&x=y"
		}),
		"a loopback redirect in IPv6":  with(func(p *provider.Profile) { p.LoopbackRedirect = "http://[::1]:{port}/" }),
		"a fixed port":                 with(func(p *provider.Profile) { p.LoopbackRedirect = "http://localhost:8765/callback" }),
		"no loopback redirect":         with(func(p *provider.Profile) { p.LoopbackRedirect = "none" }),
		"an audience that is a host":   with(func(p *provider.Profile) { p.GrantAudience = "account-d.docusign.com" }),
		"a token without an endpoint":  {Grants: []tokenbroker.GrantType{tokenbroker.GrantStatic}},
		"an endpoint to be discovered": {Issuer: "https://login.example.com", Discover: new(true)},
		"an issuer for development":    {TokenEndpoint: "http://127.0.0.1:1/t", Issuer: "http://127.0.0.1:1", InsecureLoopback: true},
		"a client id in a revocation": with(func(p *provider.Profile) {
			p.RevocationStyle, p.RevocationEndpoint = "github", "https://login.example.com/{client_id}/token"
		}),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := provider.New(map[string]provider.Profile{"acme": p}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWarningsAreOfConfiguredProvidersAlone(t *testing.T) {
	c, err := provider.New(map[string]provider.Profile{
		"old":   with(func(p *provider.Profile) { p.PKCE = "off" }),
		"older": with(func(p *provider.Profile) { p.Grants = []tokenbroker.GrantType{tokenbroker.GrantPassword} }),
		"sound": with(func(*provider.Profile) {}),
	})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(c.Warnings(), "\n")
	for _, want := range []string{"provider old: pkce: off", "provider older: grants: password", "RFC 9700 §2.4"} {
		if !strings.Contains(got, want) {
			t.Errorf("warnings %q lack %q", got, want)
		}
	}
	if strings.Contains(got, "sound") || strings.Contains(got, "slack") {
		t.Errorf("warnings %q speak of what nobody configured, or of nothing", got)
	}
}

func TestAFileThatMakesTheReaderPanicIsRefused(t *testing.T) {
	for _, text := range []string{"acme: {auth_methods: !0 0}", "acme: !0 0", "!0 0"} {
		if _, err := provider.Parse([]byte(text)); err == nil {
			t.Errorf("%s: got no error", text)
		}
	}
}
