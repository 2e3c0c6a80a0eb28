package grant_test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

const (
	googleToken = "https://oauth2.googleapis.com/token"
	robot       = "robot@project.iam.gserviceaccount.com"
)

// serviceAccount is a key file as Google gives it out.
func serviceAccount(t *testing.T) string {
	t.Helper()
	key := strings.ReplaceAll(pkcs8(t, rsaKey()), "\n", `\n`)
	return fmt.Sprintf(`{"type":"service_account","project_id":"project","private_key_id":"0123abcd","private_key":"%s","client_email":"%s",
		"client_id":"112233445566778899000","auth_uri":"https://accounts.google.com/o/oauth2/auth","token_uri":"%s","universe_domain":"googleapis.com"}`, key, robot, googleToken)
}

// robotRequest asks as a service account.
func robotRequest(t *testing.T, c *grant.Client, scopes ...string) tokenbroker.ExchangeRequest {
	t.Helper()
	k := parsed(t, c, serviceAccount(t))
	return tokenbroker.ExchangeRequest{
		Credential: tokenbroker.Credential{Name: "acme/robot", Provider: "acme", Client: "acme/robot", Grant: tokenbroker.GrantJWTBearer, Scopes: scopes},
		Client:     tokenbroker.OAuthClient{Name: "acme/robot", Provider: "acme", ClientID: k.ClientID, Account: k.Account, Auth: tokenbroker.AuthServiceAccount},
		Secret:     k.Secret,
	}
}

func google() provider.Profile { return provider.Profile{Base: "google-service-account"} }

// TestAServiceAccountsRequestIsWhatTheRFCsSay takes header, claims and form apart by hand (RFC 7515, RFC 7523 §2.1 and §3), and has the
// signature checked by the standard library and by another JOSE implementation.
func TestAServiceAccountsRequestIsWhatTheRFCsSay(t *testing.T) {
	for _, subject := range []string{"", "ann@example.com"} {
		t.Run("for "+subject, func(t *testing.T) {
			c, rec := recording(t, google())
			r := robotRequest(t, c, "https://www.googleapis.com/auth/drive", "https://www.googleapis.com/auth/calendar")
			r.Credential.Subject = subject
			before := time.Now()
			if _, err := c.Exchange(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			sent := rec.only(t)
			if sent.method != "POST" || sent.url != googleToken || sent.header.Get("Content-Type") != "application/x-www-form-urlencoded" {
				t.Errorf("got %s %s %v", sent.method, sent.url, sent.header)
			}
			if _, ok := sent.header["Authorization"]; ok {
				t.Error("client authentication was sent")
			}
			assertion := sent.form.Get("assertion")
			want := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
			if diff := cmp.Diff(want, sent.form); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
			j := parseJWT(t, assertion)
			if diff := cmp.Diff(map[string]any{"alg": "RS256", "typ": "JWT", "kid": "0123abcd"}, j.header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			checkRobotClaims(t, j, subject, before)
			j.wantRS256(t, &rsaKey().PublicKey)
			wantNode(t, assertion, publicJWK(t, &rsaKey().PublicKey), "RS256", robot, googleToken)
		})
	}
}

func checkRobotClaims(t *testing.T, j jwt, subject string, before time.Time) {
	t.Helper()
	want := map[string]any{"iss": robot, "aud": googleToken, "scope": "https://www.googleapis.com/auth/calendar https://www.googleapis.com/auth/drive"}
	if subject != "" {
		want["sub"] = subject
	}
	iat, exp := j.number(t, "iat"), j.number(t, "exp")
	jti, _ := j.claims["jti"].(string)
	got := maps.Clone(j.claims)
	for _, timely := range []string{"iat", "exp", "jti"} {
		delete(got, timely)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	if back := before.Unix() - iat; back > 10 || back < 10-int64(time.Since(before).Seconds())-1 {
		t.Errorf("iat is back-dated by %d s, want 10", back)
	}
	if exp-iat != 3600 {
		t.Errorf("exp is iat + %d, want 3600", exp-iat)
	}
	if len(jti) < 22 {
		t.Errorf("jti %q has less than 128 bits", jti)
	}
}

func TestEachExchangeMakesAnAssertionOfItsOwn(t *testing.T) {
	c, rec := recording(t, google())
	r := robotRequest(t, c, "a")
	seen := map[string]bool{}
	for range 3 {
		if _, err := c.Exchange(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, sent := range rec.requests() {
		jti, _ := parseJWT(t, sent.form.Get("assertion")).claims["jti"].(string)
		seen[jti] = true
	}
	if len(seen) != 3 {
		t.Errorf("got %d ids in 3 assertions", len(seen))
	}
}

// TestTheGenericFormTakesItsClaimsFromTheProfile has servers that differ in what they want of the same grant.
func TestTheGenericFormTakesItsClaimsFromTheProfile(t *testing.T) {
	three := provider.Duration(3 * time.Minute)
	for _, tt := range []struct {
		name    string
		profile provider.Profile
		want    map[string]any
		life    int64
		scope   string // of the form
	}{
		{"token endpoint, scopes inside, five minutes", provider.Profile{}, map[string]any{"aud": "https://login.example.com/token", "scope": "a b"}, 300, ""},
		{"as Salesforce: a literal audience, three minutes, scopes outside", provider.Profile{GrantAudience: "https://login.salesforce.com", AssertionLife: &three, ScopeInAssertion: new(false)},
			map[string]any{"aud": "https://login.salesforce.com"}, 180, "a b"},
		{"as Box: a further claim", provider.Profile{AssertionClaims: map[string]string{"box_sub_type": "enterprise"}},
			map[string]any{"aud": "https://login.example.com/token", "box_sub_type": "enterprise", "scope": "a b"}, 300, ""},
		{"the issuer as audience", provider.Profile{GrantAudience: "issuer", Issuer: "https://login.example.com"},
			map[string]any{"aud": "https://login.example.com", "scope": "a b"}, 300, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, rec := recording(t, tt.profile)
			r := robotRequest(t, c, "b", "a")
			r.Client.ClientID, r.Client.Account, r.Credential.Subject = "consumer-key", "", "ann@example.com"
			if _, err := c.Exchange(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			sent := rec.only(t)
			j := parseJWT(t, sent.form.Get("assertion"))
			if got := j.number(t, "exp") - j.number(t, "iat"); got != tt.life {
				t.Errorf("life: got %d, want %d", got, tt.life)
			}
			for _, timely := range []string{"iat", "exp", "jti"} {
				delete(j.claims, timely)
			}
			tt.want["iss"], tt.want["sub"] = "consumer-key", "ann@example.com"
			if diff := cmp.Diff(tt.want, j.claims); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if got := sent.form.Get("scope"); got != tt.scope {
				t.Errorf("scope: got %q, want %q", got, tt.scope)
			}
		})
	}
}

func TestAnAssertionMayGoWithAClientSecret(t *testing.T) {
	c, rec := recording(t, provider.Profile{})
	r := robotRequest(t, c, "a")
	r.Client.Auth, r.Client.Account, r.Credential.Subject = tokenbroker.AuthClientSecretPost, "", "4711"
	r.Client.Secrets = []tokenbroker.ClientSecret{r.Secret}
	r.Secret = tokenbroker.ClientSecret{Secret: tokenbroker.NewSecret(secretCanary)}
	if _, err := c.Exchange(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	sent := rec.only(t)
	if sent.form.Get("client_id") != robot || sent.form.Get("client_secret") != secretCanary {
		t.Errorf("got client %q", sent.form.Get("client_id"))
	}
	parseJWT(t, sent.form.Get("assertion")).wantRS256(t, &rsaKey().PublicKey)
}

func TestAServiceAccountGetsExactlyTheScopesThatItAsksFor(t *testing.T) {
	c, rec := recording(t, google())
	r := robotRequest(t, c, "a", "b")
	r.Variant = tokenbroker.NewVariant([]string{"b"}, "", "")
	out, err := c.Exchange(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(out.Token.Scopes, []string{"b"}) || parseJWT(t, rec.only(t).form.Get("assertion")).claims["scope"] != "b" {
		t.Errorf("got %v", out.Token.Scopes)
	}
	rec.body = `{"access_token":"at","expires_in":3600,"scope":"a b"}`
	if f := failureOf(t, second(c.Exchange(t.Context(), r))); f.Code != "downscope_not_confirmed" {
		t.Errorf("got %+v, want downscope_not_confirmed", f)
	}
}

func second[A any](_ A, err error) error { return err }

func TestAssertionsThatAreNotSent(t *testing.T) {
	c, rec := recording(t, provider.Profile{})
	for _, tt := range []struct {
		name, code string
		change     func(*tokenbroker.ExchangeRequest)
	}{
		{"no key", "key_missing", func(r *tokenbroker.ExchangeRequest) { r.Secret = tokenbroker.ClientSecret{} }},
		{"a secret in place of a key", "key_missing", func(r *tokenbroker.ExchangeRequest) { r.Secret.Kind = "" }},
		{"a key that is none", "key_unreadable", func(r *tokenbroker.ExchangeRequest) { r.Secret.Secret = tokenbroker.NewSecret(secretCanary) }},
		{"an algorithm of another key", "key_unusable", func(r *tokenbroker.ExchangeRequest) { r.Secret.Algorithm = "ES256" }},
		{"a certificate that is none", "certificate_unreadable", func(r *tokenbroker.ExchangeRequest) { r.Secret.Certificate = secretCanary }},
		{"no subject where there must be one", "subject_missing", func(r *tokenbroker.ExchangeRequest) { r.Client.Account = "" }},
		{"no client id", "client_id_missing", func(r *tokenbroker.ExchangeRequest) { r.Client.ClientID = "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := robotRequest(t, c, "a")
			tt.change(&r)
			f := failureOf(t, second(c.Exchange(t.Context(), r)))
			if want := (tokenbroker.Failure{Class: config, Code: tt.code}); *f != want {
				t.Errorf("got %+v, want %+v", *f, want)
			}
		})
	}
	if got := len(rec.requests()); got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
}

// TestRefusedAssertions has what servers say of assertions: never that a person has to consent again.
func TestRefusedAssertions(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		date       time.Time
		class      tokenbroker.Class
		ahead      time.Duration
	}{
		{"a bad signature", `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`, time.Now(), config, 0},
		{"the time frame, by its words", `{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."}`,
			time.Now(), skew, 0},
		{"a clock that is an hour behind", `{"error":"invalid_grant"}`, time.Now().Add(time.Hour), skew, -time.Hour},
		{"a clock that is an hour ahead", `{"error":"invalid_grant"}`, time.Now().Add(-time.Hour), skew, time.Hour},
		{"another error at another time", `{"error":"unauthorized_client"}`, time.Now().Add(time.Hour), config, -time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, rec := recording(t, google())
			rec.status, rec.body = 400, tt.body
			rec.header.Set("Date", tt.date.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"))
			f := failureOf(t, second(c.Exchange(t.Context(), robotRequest(t, c, "a"))))
			if f.Class != tt.class || (f.Skew-tt.ahead).Abs() > 30*time.Second {
				t.Errorf("got %s, skew %s; want %s, skew about %s", f.Class, f.Skew, tt.class, tt.ahead)
			}
		})
	}
}
