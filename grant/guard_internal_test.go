package grant

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

// These are inside the package because the catalogue refuses such literals before a connection is ever tried, and a name
// that resolves to them needs a name server.

func TestGuardJudgesTheAddressThatIsConnectedTo(t *testing.T) {
	var reached atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			reached.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	for _, single := range []bool{true, false} {
		p := provider.Profile{TokenEndpoint: s.URL}
		e := &endpoint{name: "acme", profile: p, traits: p.Traits()}
		e.shared, e.single = newTransport(p, nil, nil, single), newTransport(p, nil, nil, single)
		q := e.newCall(s.URL)
		q.form.Set("refresh_token", "x")
		_, err := q.send(t.Context())
		var f *tokenbroker.Failure
		if !errors.As(err, &f) || f.Sent || f.Class != tokenbroker.ClassConfiguration || f.Code != "address_not_allowed" {
			t.Errorf("got %v, want an unsent configuration failure", err)
		}
		if err != nil && !strings.Contains(err.Error(), "127.0.0.1 is a loopback address; set allow_private") {
			t.Errorf("error %q does not say what to do", err)
		}
	}
	if got := reached.Load(); got != 0 {
		t.Errorf("the server was reached %d times", got)
	}
}

func TestGuardTable(t *testing.T) {
	for _, tt := range []struct {
		address string
		profile provider.Profile
		want    bool
	}{
		{"203.0.113.7:443", provider.Profile{}, true},
		{"[2606:4700::1111]:443", provider.Profile{}, true},
		{"127.0.0.1:443", provider.Profile{}, false},
		{"127.0.0.1:443", provider.Profile{InsecureLoopback: true}, true},
		{"10.0.0.1:443", provider.Profile{InsecureLoopback: true}, false},
		{"10.0.0.1:443", provider.Profile{AllowPrivate: true}, true},
		{"169.254.169.254:80", provider.Profile{AllowPrivate: true}, false},
		{"[::ffff:169.254.169.254]:80", provider.Profile{AllowPrivate: true}, false},
		{"[fe80::1%lo]:80", provider.Profile{AllowPrivate: true}, false},
		{"0.0.0.0:443", provider.Profile{AllowPrivate: true}, false},
		{"a name:443", provider.Profile{AllowPrivate: true}, false},
	} {
		err := guard(tt.profile)(t.Context(), "tcp", tt.address, nil)
		if (err == nil) != tt.want || err != nil && !errors.Is(err, errAddress) {
			t.Errorf("%s with %+v: got %v, want allowed %v", tt.address, tt.profile, err, tt.want)
		}
	}
}

// From outside this can't be seen on loopback alone: the environment's proxy is never used for loopback addresses.
func TestProxyIsTheProfilesOrNone(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	for _, single := range []bool{true, false} {
		if tr := newTransport(provider.Profile{TokenEndpoint: "https://login.example.com"}, nil, nil, single); tr.Proxy != nil {
			t.Error("got a proxy where the profile has none")
		}
		tr := newTransport(provider.Profile{Proxy: "http://proxy.example.com:3128", ProxyResolves: true}, nil, nil, single)
		if u, err := tr.Proxy(httptest.NewRequest(http.MethodPost, "https://login.example.com", nil)); err != nil || u.Host != "proxy.example.com:3128" {
			t.Errorf("got proxy %v, %v, want the profile's", u, err)
		}
	}
}
