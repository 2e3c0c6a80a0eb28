package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
)

// refusing answers a status with a challenge to the token that was revoked, and 200 to others.
func (w *world) refusing(status int, challenges ...string) func(http.ResponseWriter, hit) {
	return func(rw http.ResponseWriter, h hit) {
		if w.b.Sandbox.Valid(h.bearer()) {
			return
		}
		for _, c := range challenges {
			rw.Header().Add("WWW-Authenticate", c)
		}
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, "refused")
	}
}

func TestARefusalIsReportedByItsCodeAndGotPast(t *testing.T) {
	for name, tc := range map[string]struct {
		status     int
		challenges []string
		code       string
	}{
		"no challenge":               {401, nil, "invalid_token"},
		"invalid_token":              {401, []string{`Bearer error="invalid_token", error_description="secret words"`}, "invalid_token"},
		"a challenge without a code": {401, []string{`Bearer realm="x"`}, "invalid_token"},
		"another's code":             {401, []string{`Basic realm="a, b"`, `bearer realm="x", Error=expired_token`}, "expired_token"},
		"several in one field":       {401, []string{`Negotiate abc==, Basic realm="a", error="no", Bearer error="revoked"`}, "revoked"},
		"a code that is none":        {401, []string{`Bearer error="an error with blanks"`}, "status_401"},
		"a code that is too long":    {401, []string{`Bearer error="` + strings.Repeat("x", 65) + `"`}, "status_401"},
		"403 as 401":                 {403, nil, "status_403"},
		"403 with a code":            {403, []string{`Bearer error="expired"`}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, time.Millisecond)
			a := openSite(t, false, w.refusing(tc.status, tc.challenges...))
			old := w.revoke(t)
			status, _, err := send(w.to(a, "example/api", client.RetryStatuses(403)), get(t, a.URL))
			if hits := a.hits(); err != nil || status != http.StatusOK || len(hits) != 2 || hits[0].bearer() != old || hits[1].bearer() == old {
				t.Errorf("got %d, %v after %d requests, want 200 by a newer token at the second", status, err, len(hits))
			}
			reports := w.of(broker.EventReport, "example/api")
			if len(reports) != 1 || reports[0].Code != tc.code || reports[0].HTTPStatus != http.StatusUnauthorized {
				t.Errorf("got reports %+v, want one of 401 with the code %q", reports, tc.code)
			}
		})
	}
}

func TestStatusesThatAreNoneOfOursComeBackAsTheyAre(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	for _, answer := range []func(http.ResponseWriter, hit){w.refusing(403), w.refusing(403, `Bearer error="invalid_token"`), w.refusing(400, `Bearer error="insufficient_scope"`), w.refusing(500)} {
		a := openSite(t, false, answer)
		w.revoke(t)
		if status, body, err := send(w.to(a, "example/api"), get(t, a.URL)); err != nil || status < 400 || body != "refused" || len(a.hits()) != 1 {
			t.Errorf("got %d, %q, %v after %d requests, want the API's own answer to one", status, body, err, len(a.hits()))
		}
	}
	if n := len(w.of(broker.EventReport, "example/api")); n != 0 {
		t.Errorf("got %d reports, want none", n)
	}
}

func TestATokenTooNarrowIsAnErrorThatNamesTheScope(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a := openSite(t, false, func(rw http.ResponseWriter, _ hit) {
		rw.Header().Set("WWW-Authenticate", `Basic realm="x", Bearer realm="api", error="insufficient_scope", scope="files.read files.write  files.write bad\"one", error_description="secret words"`)
		rw.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(rw, "secret words")
	})
	hc := w.to(a, "example/api", client.RetryStatuses(403))
	host, _ := url.Parse(a.URL)
	for range 5 {
		_, _, err := send(hc, get(t, a.URL))
		e, ok := errors.AsType[*client.ScopeError](err)
		if !ok || !errors.Is(err, tokenbroker.ErrScopeNotGranted) || e.Credential != "example/api" || e.Host != host.Host || !slices.Equal(e.Missing, []string{"files.write"}) {
			t.Fatalf("got %v, want a ScopeError with files.write", err)
		}
		if s := err.Error(); !strings.Contains(s, "files.write") || !strings.Contains(s, host.Host) || strings.Contains(s, "secret") {
			t.Errorf("got %q, want the scope and the host, and nothing of the API's words", s)
		}
	}
	reports := w.of(broker.EventReport, "example/api")
	if len(reports) != 1 || reports[0].HTTPStatus != http.StatusForbidden || reports[0].Code != "insufficient_scope" || len(a.hits()) != 5 {
		t.Errorf("got %+v of %d requests, want one report of 403", reports, len(a.hits()))
	}
	if n := len(w.of(broker.EventExchange, "example/api")); n != 1 {
		t.Errorf("got %d exchanges, want no refresh", n)
	}
}

func TestATokenTooNarrowIsSeenAlsoAtTheSecondTry(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a := openSite(t, false, func(rw http.ResponseWriter, h hit) {
		rw.Header().Set("WWW-Authenticate", `Bearer error=insufficient_scope`)
		rw.WriteHeader(map[bool]int{true: http.StatusForbidden, false: http.StatusUnauthorized}[w.b.Sandbox.Valid(h.bearer())])
	})
	w.revoke(t)
	_, _, err := send(w.to(a, "example/api"), get(t, a.URL))
	if e, ok := errors.AsType[*client.ScopeError](err); !ok || len(e.Missing) != 0 || len(a.hits()) != 2 || !strings.Contains(err.Error(), "does not name") {
		t.Errorf("got %v after %d requests, want a ScopeError that names none after two", err, len(a.hits()))
	}
}

func TestALateRefusalOfAnOldTokenIsNotReported(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	var late atomic.Pointer[chan struct{}]
	a := openSite(t, false, func(rw http.ResponseWriter, h hit) {
		if h.path == "/slow" && !w.b.Sandbox.Valid(h.bearer()) {
			<-*late.Load()
		}
		w.valid(rw, h)
	})
	gate := make(chan struct{})
	late.Store(&gate)
	w.revoke(t)
	var slow sync.WaitGroup
	for range 10 {
		slow.Go(func() {
			if status, _, err := send(w.to(a, "example/api"), get(t, a.URL+"/slow")); err != nil || status != http.StatusOK {
				t.Errorf("slow: got %d, %v, want 200", status, err)
			}
		})
	}
	eventually(t, "the slow requests have begun", func() bool { return len(a.hits()) == 10 })
	if status, _, err := send(w.to(a, "example/api"), get(t, a.URL)); err != nil || status != http.StatusOK {
		t.Fatalf("got %d, %v, want 200", status, err)
	}
	close(gate)
	slow.Wait()
	if n, exchanges := len(w.of(broker.EventReport, "example/api")), len(w.of(broker.EventExchange, "example/api")); n != 1 || exchanges != 2 {
		t.Errorf("got %d reports and %d exchanges, want the first request's report, and one exchange for it", n, exchanges)
	}
}

// eventually waits for another goroutine's work to show. How long that takes is the machine's affair.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 60_000 {
		if is() {
			return
		}
		<-tick.C
	}
	t.Fatalf("never: %s", what)
}

func TestAHerdThatIsRefusedMakesOneReportOfAGeneration(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a := openSite(t, false, w.valid)
	clients := []*http.Client{w.to(a, "example/api"), w.to(a, "example/api"), w.to(a, "example/api", client.For(client.MinValidity(time.Second)))}
	const workers, rounds = 50, 8
	for round := range rounds {
		w.revoke(t)
		var herd sync.WaitGroup
		for i := range workers {
			herd.Go(func() {
				for range 3 {
					if status, _, err := send(clients[i%len(clients)], get(t, a.URL)); err != nil || status != http.StatusOK {
						t.Errorf("round %d: got %d, %v, want 200", round, status, err)
					}
				}
			})
		}
		herd.Wait()
	}
	if n, exchanges := len(w.of(broker.EventReport, "example/api")), len(w.of(broker.EventExchange, "example/api")); n != rounds || exchanges != rounds+1 {
		t.Errorf("got %d reports and %d exchanges of %d revocations, want one each", n, exchanges, rounds)
	}
}

func TestTokensRevokedAllTheTimeCostOneExchangeEach(t *testing.T) {
	w := newWorld(t, time.Nanosecond)
	a := openSite(t, false, w.valid)
	ctx, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	var good atomic.Int64
	for range 50 {
		workers.Go(func() {
			hc := w.to(a, "example/api")
			for ctx.Err() == nil {
				status, _, err := send(hc, get(t, a.URL))
				switch {
				case err == nil && status == http.StatusOK:
					good.Add(1)
				case err == nil && status == http.StatusUnauthorized: // the second token was revoked, too
				case ctx.Err() == nil:
					t.Errorf("got %d, %v, want an answer of the API", status, err)
				}
			}
		})
	}
	const revocations = 20
	for range revocations {
		before := good.Load()
		w.revoke(t)
		eventually(t, "requests go on", func() bool { return good.Load() >= before+50 })
	}
	stop()
	workers.Wait()
	if n := len(w.of(broker.EventExchange, "example/api")); n > revocations+1 {
		t.Errorf("got %d exchanges of %d revocations", n, revocations)
	}
	if n := len(w.of(broker.EventReport, "example/api")); n > revocations {
		t.Errorf("got %d reports of %d revocations", n, revocations)
	}
}

func TestAReportIsMadeAlsoToABrokerThatHasStartedAnew(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a := openSite(t, false, w.valid)
	w.revoke(t)
	w.b.Restart()
	if status, _, err := send(w.to(a, "example/api", client.RetryWait(time.Minute)), get(t, a.URL)); err != nil || status != http.StatusOK {
		t.Errorf("got %d, %v, want 200: it was not handed that generation since it started", status, err)
	}
}

func TestABrokerThatComesBackMeanwhileIsReportedTo(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a := openSite(t, false, w.valid)
	w.revoke(t)
	w.b.Shutdown()
	var back sync.WaitGroup
	back.Go(func() {
		eventually(t, "the request is refused", func() bool { return len(a.hits()) > 0 })
		w.b.Restart()
	})
	if status, _, err := send(w.to(a, "example/api", client.RetryWait(time.Minute)), get(t, a.URL)); err != nil || status != http.StatusOK {
		t.Errorf("got %d, %v, want 200", status, err)
	}
	back.Wait()
}

func TestAnIdentityThatMayNotSubscribeIsRefreshedAllTheSame(t *testing.T) {
	w := worldOf(t, time.Millisecond, strings.Replace(brokertest.DefaultPolicy, `"spiffe://brokertest.local/worker/*"]
    actions: ["token.*"]`, `"spiffe://brokertest.local/worker/*"]
    actions: ["token.get", "token.report"]`, 1))
	a := openSite(t, false, w.valid)
	w.revoke(t)
	if status, _, err := send(w.to(a, "example/api"), get(t, a.URL)); err != nil || status != http.StatusOK {
		t.Errorf("got %d, %v, want 200", status, err)
	}
}

func TestAKeyThatNobodyCanRefreshComesBackWithTheAPIsAnswer(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	a := openSite(t, false, func(rw http.ResponseWriter, _ hit) {
		rw.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(rw, "no such key")
	})
	for range 3 {
		if status, body, err := send(w.to(a, "example/key", client.RetryWait(200*time.Millisecond)), get(t, a.URL)); err != nil || status != http.StatusUnauthorized || body != "no such key" {
			t.Errorf("got %d, %q, %v, want the API's answer", status, body, err)
		}
	}
	if n, hits := len(w.of(broker.EventReport, "example/key")), len(a.hits()); n > 6 || hits != 3 {
		t.Errorf("got %d reports of %d requests, want at most two of each", n, hits)
	}
}
