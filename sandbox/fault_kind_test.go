package sandbox_test

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func (w *world) play(spec sandbox.FaultSpec) {
	w.t.Helper()
	f, err := spec.Fault()
	if err == nil {
		err = w.srv.Try("acme", f)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestEveryKindOfFaultDoesWhatItsNameSays(t *testing.T) {
	shown := map[string]bool{"": true, "latency": true, "hang": true, "refuse": true, "dns": true, "tls": true, "bad_401": true, "bad_403": true, "skew": true} // by other tests
	for name, row := range map[string]struct {
		spec     sandbox.FaultSpec
		status   int // 0 = no answer
		contains string
		lacks    string
		header   string
		spent    bool // the refresh token
	}{
		"error":            {spec: sandbox.FaultSpec{Kind: "error", Code: "invalid_grant", Description: "no"}, status: 400, contains: `{"error":"invalid_grant","error_description":"no"}`},
		"error, status":    {spec: sandbox.FaultSpec{Kind: "error", Code: "invalid_client", Status: 401}, status: 401, contains: `{"error":"invalid_client"}`},
		"google":           {spec: sandbox.FaultSpec{Kind: "google", Code: "email"}, status: 400, contains: `"error_description":"Not a valid email."`},
		"slack":            {spec: sandbox.FaultSpec{Kind: "slack", Code: "invalid_refresh_token"}, status: 200, contains: `{"error":"invalid_refresh_token","ok":false}`},
		"github":           {spec: sandbox.FaultSpec{Kind: "github", Code: "bad_refresh_token"}, status: 200, contains: "error=bad_refresh_token", header: "Content-Type: application/x-www-form-urlencoded; charset=utf-8"},
		"throttle":         {spec: sandbox.FaultSpec{Kind: "throttle"}, status: 429, contains: "Too Many Requests", header: "Retry-After: "},
		"throttle seconds": {spec: sandbox.FaultSpec{Kind: "throttle", RetryAfter: sandbox.Duration(7 * time.Second)}, status: 429, header: "Retry-After: 7"},
		"throttle date":    {spec: sandbox.FaultSpec{Kind: "throttle", RetryDate: sandbox.Duration(time.Minute)}, status: 429, contains: "Too Many"},
		"500":              {spec: sandbox.FaultSpec{Kind: "500"}, status: 500},
		"html":             {spec: sandbox.FaultSpec{Kind: "html"}, status: 502, contains: "<h1>Bad Gateway", header: "Content-Type: text/html; charset=utf-8"},
		"truncated":        {spec: sandbox.FaultSpec{Kind: "truncated"}, spent: true},
		"huge":             {spec: sandbox.FaultSpec{Kind: "huge"}, status: 200, contains: strings.Repeat("x", 2<<20), spent: true},
		"reset":            {spec: sandbox.FaultSpec{Kind: "reset"}},
		"lost":             {spec: sandbox.FaultSpec{Kind: "lost"}, spent: true},
		"no expiry":        {spec: sandbox.FaultSpec{Kind: "expires", Expires: sandbox.ExpiresOmitted}, status: 200, lacks: "expires_in", spent: true},
		"null":             {spec: sandbox.FaultSpec{Kind: "expires", Expires: sandbox.ExpiresNull}, status: 200, contains: `"expires_in":null`, spent: true},
		"string":           {spec: sandbox.FaultSpec{Kind: "expires", Expires: sandbox.ExpiresString}, status: 200, contains: `"expires_in":"3600"`, spent: true},
		"float":            {spec: sandbox.FaultSpec{Kind: "expires", Expires: sandbox.ExpiresFloat}, status: 200, contains: `"expires_in":3600.5`, spent: true},
		"ms":               {spec: sandbox.FaultSpec{Kind: "expires", Expires: sandbox.ExpiresMillis}, status: 200, contains: `"expires_in":3600000`, spent: true},
		"empty":            {spec: sandbox.FaultSpec{Kind: "expires", Expires: sandbox.ExpiresEmpty}, status: 200, contains: `"expires_in":""`, spent: true},
		"zero":             {spec: sandbox.FaultSpec{Kind: "expires", Expires: sandbox.ExpiresZero}, status: 200, contains: `"expires_in":0`, spent: true},
		"negative":         {spec: sandbox.FaultSpec{Kind: "expires", Expires: sandbox.ExpiresNegative}, status: 200, contains: `"expires_in":-1`, spent: true},
		"huge number":      {spec: sandbox.FaultSpec{Kind: "expires", Expires: sandbox.ExpiresHuge}, status: 200, contains: `"expires_in":1e99`, spent: true},
		"short_life":       {spec: sandbox.FaultSpec{Kind: "short_life"}, status: 200, contains: `"expires_in":1,`, spent: true},
		"no_refresh":       {spec: sandbox.FaultSpec{Kind: "no_refresh"}, status: 200, lacks: "refresh_token", spent: true},
		"pending":          {spec: sandbox.FaultSpec{Kind: "pending"}, status: 200, spent: true}, // not met by a refresh
		"slow_down":        {spec: sandbox.FaultSpec{Kind: "slow_down"}, status: 200, spent: true},
		"denied":           {spec: sandbox.FaultSpec{Kind: "denied"}, status: 200, spent: true},
		"expired":          {spec: sandbox.FaultSpec{Kind: "expired"}, status: 200, spent: true},
	} {
		shown[row.spec.Kind] = true
		t.Run(name, func(t *testing.T) {
			inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
				w.play(row.spec)
				token := w.seed("read")
				got, err := w.try(w.refreshing(token))
				if (err != nil) != (row.status == 0) || err == nil && got.status != row.status || !strings.Contains(got.text, row.contains) || row.lacks != "" && strings.Contains(got.text, row.lacks) {
					t.Fatalf("got %d %.200q, %v", got.status, got.text, err)
				}
				if name, value, ok := strings.Cut(row.header, ": "); ok && got.header.Get(name) != value {
					t.Errorf("got %s %q, want %q", name, got.header.Get(name), value)
				}
				if n := w.srv.Redemptions()[sandbox.Fingerprint(token)].Redeemed; (n > 0) != row.spent {
					t.Errorf("got %d redemptions, want spent %t", n, row.spent)
				}
			})
		})
	}
	for _, kind := range sandbox.FaultKinds() {
		if !shown[kind] || sandbox.FaultHelp(kind) == "" {
			t.Errorf("kind %q is not shown, or has no help", kind)
		}
	}
}

func TestDeviceFaultsMeetPolls(t *testing.T) {
	iss := people()
	iss.AutoApprove = "ann@corp.test"
	w := newWorld(t, iss)
	d := w.begin()
	w.play(sandbox.FaultSpec{Kind: "pending", Times: 2})
	for kind, code := range map[string]string{"slow_down": "slow_down", "denied": "access_denied", "expired": "expired_token"} {
		w.play(sandbox.FaultSpec{Kind: kind, ClientID: "web", Name: code})
	}
	got := map[string]int{}
	for range 5 {
		got[w.poll(d).str("error")]++
	}
	if got["authorization_pending"] != 2 || got["slow_down"] != 1 || got["access_denied"] != 1 || got["expired_token"] != 1 {
		t.Errorf("got %v", got)
	}
	w.poll(d).want(t, 200, "")
}

func TestFaultsOfTheConnection(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	w.play(sandbox.FaultSpec{Kind: "dns"})
	_, err := w.try(w.refreshing(w.seed()))
	if dns := new(net.DNSError); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("got %v, want no such host", err)
	}
	w.play(sandbox.FaultSpec{Kind: "tls"})
	if _, err := w.try(w.refreshing(w.seed())); err == nil || !strings.Contains(err.Error(), "handshake") {
		t.Errorf("got %v, want a failed handshake", err)
	}
	w.play(sandbox.FaultSpec{Kind: "refuse"})
	if _, err := w.try(w.refreshing(w.seed())); !errors.Is(err, errConnRefused) {
		t.Errorf("got %v, want refused", err)
	}
}

func TestAResourceCanBeWrongAboutTokens(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	token := w.refresh(w.seed()).str("access_token")
	w.play(sandbox.FaultSpec{Kind: "bad_401"})
	w.play(sandbox.FaultSpec{Kind: "bad_403"})
	for n, row := range []struct {
		token  string
		status int
	}{{token, 401}, {token, 200}, {"x", 403}, {"x", 401}} {
		if got := w.get("/acme/resource", row.token); got.status != row.status {
			t.Errorf("request %d: got %d, want %d", n+1, got.status, row.status)
		}
	}
}

func TestLatencyIsDrawnWithTheSeed(t *testing.T) {
	took := func(t *testing.T, seed uint64) (out []time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			srv, err := sandbox.New(sandbox.Config{Seed: seed, Issuers: []sandbox.Issuer{{Name: "acme"}}})
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, sandbox.Issuer{})
			w.srv, w.client.Transport = srv, srv
			w.play(sandbox.FaultSpec{Kind: "latency", Endpoint: "jwks", Delay: sandbox.Duration(time.Second), DelayTo: sandbox.Duration(time.Minute), Times: 20})
			for range 20 {
				start := time.Now()
				w.get("/acme/jwks", "")
				out = append(out, time.Since(start))
			}
		})
		return out
	}
	one, same, other := took(t, 1), took(t, 1), took(t, 2)
	differ := false
	for n := range one {
		if one[n] != same[n] || one[n] < time.Second || one[n] > time.Minute {
			t.Errorf("got %s and %s with the same seed", one[n], same[n])
		}
		differ = differ || one[n] != other[n]
	}
	if !differ {
		t.Error("got the same delays with another seed")
	}
}

func TestAChanceIsDrawnWithTheSeed(t *testing.T) {
	draw := func(chance float64) (pattern string) {
		w := newWorld(t, sandbox.Issuer{})
		w.srv.Fail("acme", sandbox.Fault{Endpoint: sandbox.EndpointJWKS, Status: 500, Chance: chance, Times: sandbox.Forever})
		for range 40 {
			pattern += strconv.Itoa(w.get("/acme/jwks", "").status/100) + " "
		}
		return pattern
	}
	half := draw(0.5)
	if half != draw(0.5) || !strings.Contains(half, "5") || !strings.Contains(half, "2") {
		t.Errorf("got %s", half)
	}
	if certain := draw(1); strings.Contains(certain, "2") {
		t.Errorf("got %s, want it always", certain)
	}
}

func TestAShortLifeIsTheTruth(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	w.play(sandbox.FaultSpec{Kind: "short_life", Life: sandbox.Duration(3 * time.Second)})
	token := w.refresh(w.seed()).str("access_token")
	w.srv.Advance(3*time.Second - time.Millisecond*500)
	w.wantValid(token, true)
	w.srv.Advance(time.Second)
	w.wantValid(token, false)
}

func TestSpecsThatMakeNoSense(t *testing.T) {
	for want, spec := range map[string]sandbox.FaultSpec{
		"no kind of fault":    {Kind: "magic"},
		"takes no code":       {Kind: "hang", Code: "x"},
		"needs a code":        {Kind: "error"},
		"needs a code ":       {Kind: "slack"},
		"needs a code  ":      {Kind: "github"},
		"no row":              {Kind: "google", Code: "x"},
		"needs delay":         {Kind: "latency"},
		"needs expires":       {Kind: "expires"},
		"needs skew":          {Kind: "skew"},
		"no form":             {Kind: "expires", Expires: "x"},
		"no issuer":           {Issuer: "nobody"},
		"no endpoint":         {Endpoint: "nowhere"},
		"less than Delay":     {Delay: 2, DelayTo: 1},
		"whole seconds":       {Life: 1},
		"chance 2":            {Chance: 2},
		"sees no bearer":      {Bearer: sandbox.BearerLive},
		"sees no bearer ":     {Endpoint: "resource", Bearer: "x"},
		"knows no clients":    {Endpoint: "jwks", ClientID: "post"},
		"only the token":      {Endpoint: "device", GrantType: "password"},
		"connection breaks":   {Kind: "reset", Status: 500},
		"replace the answer":  {Kind: "huge", Status: 500},
		"a duration is negat": {Drip: -1},
	} {
		f, err := spec.Fault()
		if err == nil {
			issuer := spec.Issuer
			if issuer == "" {
				issuer = "acme"
			}
			err = newWorld(t, sandbox.Issuer{}).srv.Try(issuer, f)
		}
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%+v: got %v, want %q", spec, err, want)
		}
	}
	wantPanic(t, func() { newWorld(t, sandbox.Issuer{}).srv.Fail("acme", sandbox.Fault{Cause: errConnRefused}) })
}

func TestGooglesTableHasElevenRows(t *testing.T) {
	rows := sandbox.GoogleErrors()
	if len(rows) != 11 {
		t.Errorf("got %d rows, want 11", len(rows))
	}
	count := map[string]int{}
	for _, row := range rows {
		count[row.Code]++
	}
	if count["unauthorized_client"] != 2 || count["invalid_grant"] != 3 || len(count) != 8 {
		t.Errorf("got %v", count)
	}
}

// errConnRefused is what the system says when nobody listens.
var errConnRefused = syscall.ECONNREFUSED
