package grant_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/provider"
)

func ambientFile(t *testing.T, text string) grant.Ambient {
	t.Helper()
	file := filepath.Join(t.TempDir(), "application_default_credentials.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return grant.Ambient{Files: []string{file + ".none", file}}
}

func with(a grant.Ambient) func(*grant.Config) { return func(cfg *grant.Config) { cfg.Ambient = a } }

func adcRequest(scopes ...string) tokenbroker.ExchangeRequest {
	return tokenbroker.ExchangeRequest{Credential: tokenbroker.Credential{Name: "acme/adc", Provider: "acme", Grant: tokenbroker.GrantGoogleADC, Scopes: scopes}}
}

func TestAmbientServiceAccount(t *testing.T) {
	c, rec := recording(t, google(), with(ambientFile(t, serviceAccount(t))))
	out, err := c.Exchange(t.Context(), adcRequest("b", "a"))
	if err != nil || out.Token == nil {
		t.Fatal(err)
	}
	sent := rec.only(t)
	j := parseJWT(t, sent.form.Get("assertion"))
	if sent.url != googleToken || j.claims["iss"] != robot || j.claims["scope"] != "a b" || j.claims["aud"] != googleToken || j.header["kid"] != "0123abcd" {
		t.Errorf("got %v to %s", j.claims, sent.url)
	}
	j.wantRS256(t, &rsaKey().PublicKey)
}

func TestAmbientUser(t *testing.T) {
	user := fmt.Sprintf(`{"type":"authorized_user","client_id":"gcloud","client_secret":%q,"refresh_token":%q}`, secretCanary, refreshCanary)
	c, rec := recording(t, google(), with(ambientFile(t, user)))
	rec.body = `{"access_token":"at","expires_in":60,"refresh_token":"r2"}`
	out, err := c.Exchange(t.Context(), adcRequest("a"))
	if err != nil || !out.RefreshToken.IsZero() {
		t.Fatalf("got %v and a refresh token %t, which is the file's", err, !out.RefreshToken.IsZero())
	}
	want := map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {refreshCanary}, "client_id": {"gcloud"}, "client_secret": {secretCanary}}
	if diff := cmp.Diff(want, map[string][]string(rec.only(t).form)); diff != "" {
		t.Errorf("form (-want +got):\n%s", diff)
	}
}

func TestAmbientCredentialsThatCanNotBeUsed(t *testing.T) {
	missing := grant.Ambient{Files: []string{filepath.Join(t.TempDir(), "none")}, Named: true}
	for _, tt := range []struct {
		name    string
		ambient grant.Ambient
		code    string
	}{
		{"nothing at all", grant.Ambient{}, "no_ambient_credentials"},
		{"a named file that is not there", missing, "ambient_file_missing"},
		{"a folder", grant.Ambient{Files: []string{t.TempDir()}}, "ambient_file_unreadable"},
		{"an empty file", ambientFile(t, ""), "ambient_file_unreadable"},
		{"something else", ambientFile(t, secretCanary), "ambient_file_unreadable"},
		{"far too much", ambientFile(t, strings.Repeat("{", 65<<10)), "ambient_file_unreadable"},
		{"a bad key", ambientFile(t, `{"type":"service_account","client_email":"a@b","private_key":"`+secretCanary+`"}`), "ambient_file_unreadable"},
		{"half a user", ambientFile(t, `{"type":"authorized_user","refresh_token":"`+refreshCanary+`"}`), "ambient_file_unreadable"},
		{"an external account", ambientFile(t, `{"type":"external_account"}`), "ambient_external_account"},
		{"an impersonation", ambientFile(t, `{"type":"impersonated_service_account"}`), "ambient_impersonation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, rec := recording(t, google(), with(tt.ambient))
			f := failureOf(t, second(c.Exchange(t.Context(), adcRequest("a"))))
			if want := (tokenbroker.Failure{Class: config, Code: tt.code}); *f != want || len(rec.requests()) != 0 {
				t.Errorf("got %+v, want %+v", *f, want)
			}
		})
	}
}

// metadataServer is one of a Google machine, on loopback.
func metadataServer(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestMetadataServer(t *testing.T) {
	for _, tt := range []struct {
		name, flavor string
		status       int
		class        tokenbroker.Class
		code         string
	}{
		{"answers", "Google", 200, "", ""},
		{"is another one", "", 200, config, "not_a_metadata_server"},
		{"has no service account", "Google", 404, config, "no_service_account"},
		{"is in trouble", "Google", 503, ambiguous, "http_503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked string
			addr := metadataServer(t, func(w http.ResponseWriter, r *http.Request) {
				asked = r.Method + " " + r.URL.String() + " " + r.Header.Get("Metadata-Flavor")
				if tt.flavor != "" {
					w.Header().Set("Metadata-Flavor", tt.flavor)
				}
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(`{"access_token":"at","expires_in":1800,"token_type":"Bearer"}`))
			})
			c, rec := recording(t, google(), with(grant.Ambient{MetadataAddr: addr}))
			out, err := c.Exchange(t.Context(), adcRequest("b", "a"))
			if want := "GET /computeMetadata/v1/instance/service-accounts/default/token?scopes=a%2Cb Google"; asked != want {
				t.Errorf("got %q, want %q", asked, want)
			}
			if len(rec.requests()) != 0 {
				t.Error("the provider was asked, too")
			}
			if tt.code == "" {
				if err != nil || out.Token.Life() != 30*time.Minute {
					t.Errorf("got %v, %v", out.Token, err)
				}
				return
			}
			if f := failureOf(t, err); f.Class != tt.class || f.Code != tt.code || !f.Sent {
				t.Errorf("got %+v, want %s %s", f, tt.class, tt.code)
			}
		})
	}
}

func TestMetadataServerThatDoesNotAnswer(t *testing.T) {
	c, _ := recording(t, google(), with(grant.Ambient{MetadataAddr: nobody}))
	if f := failureOf(t, second(c.Exchange(t.Context(), adcRequest("a")))); f.Class != transient || f.Sent {
		t.Errorf("got %+v, want it unsent", f)
	}
}

func TestAMetadataServerIsAtALinkLocalOrLoopbackAddress(t *testing.T) {
	cat, err := provider.New(map[string]provider.Profile{"acme": google()})
	if err != nil {
		t.Fatal(err)
	}
	for addr, ok := range map[string]bool{
		"": true, "169.254.169.254": true, "169.254.169.254:8080": true, "127.0.0.1:1": true, "[fe80::1]:80": true,
		"metadata.google.internal": false, "10.0.0.1": false, "203.0.113.7:80": false, "[2001:db8::1]:80": false,
	} {
		c, err := grant.New(grant.Config{Catalogue: cat, Ambient: grant.Ambient{MetadataAddr: addr}})
		if (err == nil) != ok {
			t.Errorf("%q: got %v, want allowed %t", addr, err, ok)
		}
		if err == nil {
			c.Close()
		}
	}
}

func TestWhereAmbientCredentialsAreLookedFor(t *testing.T) {
	for _, tt := range []struct {
		name, system string
		environment  map[string]string
		want         grant.Ambient
	}{
		{"a file is named", "linux", map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/k.json", "HOME": "/root"}, grant.Ambient{Files: []string{"/k.json"}, Named: true}},
		{"the well-known file", "linux", map[string]string{"HOME": "/root"},
			grant.Ambient{Files: []string{"/root/.config/gcloud/application_default_credentials.json"}, MetadataAddr: "169.254.169.254"}},
		{"gcloud elsewhere", "linux", map[string]string{"HOME": "/root", "CLOUDSDK_CONFIG": "/g"},
			grant.Ambient{Files: []string{"/g/application_default_credentials.json"}, MetadataAddr: "169.254.169.254"}},
		{"Windows", "windows", map[string]string{"HOME": "/root", "APPDATA": "/a"},
			grant.Ambient{Files: []string{"/a/gcloud/application_default_credentials.json"}, MetadataAddr: "169.254.169.254"}},
		{"another metadata server", "linux", map[string]string{"GCE_METADATA_HOST": "127.0.0.1:99"}, grant.Ambient{MetadataAddr: "127.0.0.1:99"}},
		{"a metadata server by name", "linux", map[string]string{"GCE_METADATA_HOST": "metadata.example.com"}, grant.Ambient{MetadataAddr: "169.254.169.254"}},
	} {
		got := grant.AmbientFrom(func(name string) string { return tt.environment[name] }, tt.system)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
