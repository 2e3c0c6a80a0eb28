package sandbox_test

import (
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestAResourceWantsTheScopesOfItsQuery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Issuer{})
	token := w.refresh(w.seed("read", "write")).want(t, 200, "").str("access_token")
	for query, want := range map[string]struct {
		status    int
		challenge string
	}{
		"":                          {200, ""},
		"?scope=":                   {200, ""},
		"?scope=read":               {200, ""},
		"?scope=write+read":         {200, ""},
		"?scope=admin":              {403, `Bearer realm="sandbox", error="insufficient_scope", scope="admin"`},
		"?scope=read%20admin":       {403, `Bearer realm="sandbox", error="insufficient_scope", scope="read admin"`},
		`?scope="x`:                 {400, `Bearer realm="sandbox", error="invalid_request"`},
		"?scope=a%0d%0aX-Other:%20": {403, `Bearer realm="sandbox", error="insufficient_scope", scope="a X-Other:"`},
	} {
		got := w.get("/acme/resource"+query, token)
		if got.status != want.status || got.header.Get("WWW-Authenticate") != want.challenge {
			t.Errorf("%q: got %d and %q, want %d and %q", query, got.status, got.header.Get("WWW-Authenticate"), want.status, want.challenge)
		}
		if strings.Contains(got.text, token) {
			t.Errorf("%q: the answer holds the token", query)
		}
	}
	for _, dead := range []string{"", "unheard-of"} {
		if got := w.get("/acme/resource?scope=admin", dead); got.status != 401 {
			t.Errorf("got %d, want 401: a token that is dead comes before what it lacks", got.status)
		}
	}
}
