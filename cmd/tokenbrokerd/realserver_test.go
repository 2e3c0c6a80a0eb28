package main_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// TestSoakRealServer runs the broker against a strict authorization server of other people's making: tokens of three seconds,
// rotation with every refresh, and a family that dies when a refresh token comes twice. Hundreds of subscribers, a thousand
// callers at once and restarts in between must not make it come twice.
func TestSoakRealServer(t *testing.T) {
	t.Parallel()
	const life, grants, restarts = 3 * time.Second, 10, 3
	period := max(time.Minute, soakFor(t)) / (restarts + 1)
	o := startOIDC(t, life)
	s := newSite(t, providerYAML("oidc", o.issuer+"/token", "ca_file: "+o.ca, "rotates: true"))
	s.start()
	names := o.fill(s, grants)

	l := newLedger()
	watchers, conns := fleet(t, s, l, 20, 10, names, 2)
	settled(t, watchers, 1)
	herds := newHerds(l, conns, names)
	for i := range restarts + 1 {
		herds.run(t, period)
		if i < restarts {
			s.stop()
			s.start()
			settled(t, watchers, i+2)
		}
	}
	const least = grants * 10                                        // refreshes
	for more := 0; more < 40 && len(o.presented()) < least; more++ { // a busy machine gets less done in a minute
		herds.run(t, period)
	}
	o.checkToken(t, l, conns[0], names[1])
	s.stop()
	l.check(t)
	herds.check(t)
	o.checkLog(t, least)
	for _, w := range watchers {
		if w.goingAway < restarts {
			t.Errorf("%s: got %d going_away over %d restarts, want one each", w.who, w.goingAway, restarts)
		}
	}
}

// fill adds the server's clients, and as many credentials of each grant. They alternate, a client_credentials one first.
func (o *oidcServer) fill(s *site, each int) (names []string) {
	o.t.Helper()
	operator := s.conn("operator")
	methods := map[string]tokenbrokerv1.AuthMethod{
		"client_secret_basic": tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC,
		"client_secret_post":  tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_POST,
	}
	for i, c := range o.jobs {
		addClient(o.t, operator, fmt.Sprintf("oidc-%d", i), "oidc", c.ID, c.Secret, methods[c.Auth])
	}
	for i := range each {
		n := i % len(o.jobs)
		service, person := fmt.Sprintf("example/service-%d", i), fmt.Sprintf("example/person-%d", i)
		add(o.t, operator, service, "oidc", fmt.Sprintf("oidc-%d", n), "", "reports.read")
		add(o.t, operator, person, "oidc", fmt.Sprintf("oidc-%d", n), o.login(o.jobs[n], "openid reports.read"), "openid", "reports.read")
		names = append(names, service, person)
	}
	return names
}

// checkToken takes a token to the server's own resource.
func (o *oidcServer) checkToken(t *testing.T, l *ledger, conn *grpc.ClientConn, name string) {
	t.Helper()
	eventually(t, "the server takes a token of "+name, func() bool { // one may expire on its way
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		tok, err := l.get(ctx, conn, name)
		return err == nil && o.takes(tok.GetAccessToken())
	})
}

// presented are the refresh tokens that the server was brought, by their hashes, and how often.
func (o *oidcServer) presented() map[string]int {
	o.t.Helper()
	times := map[string]int{}
	for _, line := range o.lines() {
		if line.Event == "token" && line.RefreshToken != "" {
			times[line.RefreshToken]++
		}
	}
	return times
}

// checkLog reads the server's own log: what it says is what counts.
func (o *oidcServer) checkLog(t *testing.T, least int) {
	t.Helper()
	for _, line := range o.lines() {
		switch {
		case line.Event == "grant.revoked", line.Event == "server_error":
			t.Errorf("the server says %s %s", line.Event, line.Error)
		case line.Event == "token" && line.Status != 200:
			t.Errorf("the server answered %s with %d %s", line.GrantType, line.Status, line.Error)
		}
	}
	presented := o.presented()
	for hash, n := range presented {
		if n > 1 {
			t.Errorf("refresh token %.12s was presented %d times", hash, n)
		}
	}
	if len(presented) < least {
		t.Errorf("got %d refreshes, want at least %d", len(presented), least)
	}
	t.Logf("%d refresh tokens, each presented once", len(presented))
}

// herds are callers who come all at once, in rounds.
type herds struct {
	l      *ledger
	conns  []*grpc.ClientConn
	names  []string
	served atomic.Int64
	failed sync.Map // text of an error → true
}

const herdSize, herdEvery = 1000, 2 * time.Second

func newHerds(l *ledger, conns []*grpc.ClientConn, names []string) *herds {
	return &herds{l: l, conns: conns, names: names}
}

// run sends herds for a while.
func (h *herds) run(t *testing.T, period time.Duration) {
	t.Helper()
	tick := time.NewTicker(herdEvery)
	defer tick.Stop()
	for end := time.Now().Add(period); time.Now().Before(end); <-tick.C {
		h.round(t.Context())
	}
}

func (h *herds) round(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var wg sync.WaitGroup
	for i := range herdSize {
		wg.Go(func() {
			_, err := h.l.get(ctx, h.conns[i%len(h.conns)], h.names[i/len(h.conns)%len(h.names)])
			if err == nil {
				h.served.Add(1)
				return
			}
			if status.Code(err) != codes.Unavailable { // a connection may break in the moment of a restart
				h.failed.Store(err.Error(), true)
			}
		})
	}
	wg.Wait()
}

func (h *herds) check(t *testing.T) {
	t.Helper()
	h.failed.Range(func(err, _ any) bool {
		t.Errorf("a caller got %v", err)
		return true
	})
	if got := h.served.Load(); got < herdSize {
		t.Errorf("got %d calls served, too few to say anything", got)
	}
	t.Logf("%d calls served, %d tokens seen", h.served.Load(), h.l.tokens)
}
