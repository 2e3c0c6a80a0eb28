package grant_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

// A server that repeats what it was sent, or what it gives, where a reply says what the token is.
func TestAReplyThatRepeatsASecretIsNotUsed(t *testing.T) {
	const access, rotated = "the-access-token-of-the-reply", "the-next-refresh-token"
	p := provider.Profile{Account: []string{"team.id"}, Metadata: []string{"instance_url"}}
	reply := func(more string) string {
		return fmt.Sprintf(`{"access_token":%q,"refresh_token":%q,"expires_in":3600%s}`, access, rotated, more)
	}
	indiscreet := outcome{class: config, code: "secret_in_reply", refresh: rotated}
	for _, secret := range []string{secretCanary, refreshCanary, access, rotated} {
		for _, place := range []string{`"scope":%q`, `"scope":["read",%q]`, `"scope":"read %s write"`, `"team":{"id":"x-%s"}`} {
			fixture{name: place + " " + secret, profile: p, body: reply("," + fmt.Sprintf(place, secret)), want: indiscreet}.run(t)
		}
	}
	for _, secret := range []string{secretCanary, refreshCanary, rotated} {
		fixture{name: "metadata " + secret, profile: p, body: reply(fmt.Sprintf(`,"instance_url":"https://acme.example/?%s"`, secret)), want: indiscreet}.run(t)
	}
	discreet := outcome{access: access, refresh: rotated, life: time.Hour, scopes: "read write", metadata: map[string]string{"instance_url": "https://acme.example"}}
	fixture{name: "nothing of the kind", profile: p, body: reply(`,"scope":"read write","team":{"id":"T1"},"instance_url":"https://acme.example"`), want: discreet}.run(t)
}

// Whoever chose a scope's name for a secret is served: the name is in the configuration anyway.
func TestAScopeThatWasAskedForMayBeWhatTheSecretIs(t *testing.T) {
	f := newFake(t)
	f.on("/token", 200, `{"access_token":"at","expires_in":3600,"scope":"reports.read"}`)
	r := refreshRequest("reports.read")
	r.Secret.Secret = tokenbroker.NewSecret("reports.read")
	if _, err := newClient(t, f.profile(t)).Exchange(t.Context(), r); err != nil {
		t.Errorf("got %v, want the token", err)
	}
}

func TestWhatAPersonIsShownOfADeviceCodeRepeatsNoSecret(t *testing.T) {
	const secret = "the-secret-of-the-client"
	for _, more := range []string{`,"verification_uri_complete":"https://example.com/device?` + secret + `"`, `,"verification_uri":"https://` + secret + `.example"`} {
		f := newFake(t)
		f.on("/device", 200, `{"device_code":"x","user_code":"WDJB-MJHT","verification_url":"https://example.com/device","expires_in":900`+more+`}`)
		r := deviceRequest()
		r.Secret.Secret = tokenbroker.NewSecret(secret)
		got, err := newClient(t, f.profile(t)).StartDevice(t.Context(), r)
		if fail := failureOf(t, err); fail.Code != "secret_in_reply" || got.UserCode != "" {
			t.Errorf("%s: got %+v, want secret_in_reply", more, fail)
		}
	}
}

func TestAnIntrospectionThatRepeatsTheTokenIsNotBelieved(t *testing.T) {
	for _, place := range []string{`"scope":%q`, `"aud":%q`, `"username":%q`} {
		f := newFake(t)
		f.on("/introspect", 200, fmt.Sprintf(`{"active":true,`+place+`}`, refreshCanary))
		_, err := newClient(t, only(f.profile(t), tokenbroker.CheckIntrospection)).Check(t.Context(), checkRequest(refreshCanary))
		if fail := failureOf(t, err); fail.Code != "bad_introspection" {
			t.Errorf("%s: got %+v, want bad_introspection", place, fail)
		}
	}
}

func TestAnAccountThatIsATokenIsNone(t *testing.T) {
	const access = "the-access-token-of-the-reply"
	f := newFake(t)
	f.on("/token", 200, fmt.Sprintf(`{"access_token":%q,"expires_in":3600,"token_type":"Bearer","refresh_token":"the-refresh-token"}`, access))
	p := f.profile(t)
	p.Account = []string{"userinfo.email", "userinfo.login"}
	for says, want := range map[string]string{
		`{"email":"` + access + `"}`:                                "",
		`{"email":"the-refresh-token@corp.example"}`:                "",
		`{"email":"` + refreshCanary + `"}`:                         "",
		`{"email":"` + access + `","login":"reports@corp.example"}`: "reports@corp.example",
	} {
		f.on("/userinfo", 200, says)
		out, err := newClient(t, p).Redeem(t.Context(), codeRequest())
		if err != nil || out.Account != want {
			t.Errorf("%s: got account %q, %v, want %q", says, out.Account, err, want)
		}
	}
}
