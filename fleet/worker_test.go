package fleet_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/client"
)

// worker is a job in Go.
type worker struct {
	s          *site
	name       string // kind, way and number
	credential string
	c          *client.Client
	base       *http.Transport
	do         func(ctx context.Context, id string) error // one request
	behind     bool                                       // it has an agent between itself and the broker
	held       atomic.Pointer[tokenbroker.Token]          // of those who are told
}

// outcome is what became of a request, as the one who made it sees it.
type outcome struct {
	id         string
	credential string
	remembers  bool // the worker, or its agent, keeps tokens
	typed      bool // a missing scope is a ScopeError
	beats      int  // that it may take to use a token that has come
	from, to   time.Time
	err        error // nil = it was answered with 200
	vain       bool  // the worker's request before it failed, a moment ago
}

// refusal is an answer that is not 200.
type refusal struct{ code int }

// Error implements error.
func (r refusal) Error() string { return fmt.Sprintf("status %d", r.code) }

// kinds are the ways to a token that package client has.
func kinds() []string {
	return []string{"http", "transport", "source", "grpc", "subscribe", "onchange"}
}

// newWorker makes the worker of a number: kinds, ways and credentials go round.
func newWorker(s *site, i int) *worker {
	kind, agent := kinds()[i%len(kinds())], i/len(kinds())%2 == 1
	way := "broker"
	if agent {
		way = "agent"
	}
	names := credentialNames()
	w := &worker{s: s, name: fmt.Sprintf("%s-%s-%d", kind, way, i), credential: names[(i+i/len(names))%len(names)], behind: agent}
	if agent {
		w.c = s.open(agentConfig(s))
	} else {
		w.c = s.client(fmt.Sprintf("worker/go-%d", i))
	}
	w.base = &http.Transport{TLSClientConfig: s.trust()}
	s.t.Cleanup(w.base.CloseIdleConnections)
	w.equip(kind)
	return w
}

func (s *site) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.api.pem)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// equip sets how a worker makes its requests.
func (w *worker) equip(kind string) {
	opts := []client.TransportOption{client.Base(w.base), client.RetryWait(w.s.plan.wait)}
	switch kind {
	case "http":
		w.do = w.sends(w.c.HTTPClient(w.credential, opts...))
	case "transport":
		w.do = w.sends(&http.Client{Transport: w.c.Transport(w.credential, append(opts, client.For(client.Scopes(scopeOf(w.credential))))...)})
	case "source":
		h := &http.Client{Transport: &oauth2.Transport{Source: w.c.TokenSource(w.s.t.Context(), w.credential), Base: w.base}}
		w.do = w.persists(w.sends(h))
	case "grpc":
		w.do = w.persists(w.calls())
	default:
		w.do = w.persists(w.sends(&http.Client{Transport: &oauth2.Transport{Source: w, Base: w.base}}))
	}
}

// listen keeps what a worker is told, until ctx ends.
func (w *worker) listen(ctx context.Context) {
	switch {
	case strings.HasPrefix(w.name, "subscribe"):
		for u, err := range w.c.Subscribe(ctx, w.credential) {
			if err == nil {
				w.held.Store(u.Token)
			}
		}
	case strings.HasPrefix(w.name, "onchange"):
		stop := w.c.OnChange(w.credential, func(c client.Change) { w.held.Store(c.Token) })
		<-ctx.Done()
		stop()
	}
}

// settle waits until a worker has had its first token.
func (w *worker) settle() {
	ctx, cancel := context.WithTimeout(w.s.t.Context(), patience)
	defer cancel()
	told := strings.HasPrefix(w.name, "subscribe") || strings.HasPrefix(w.name, "onchange")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ctx.Err() == nil; <-tick.C {
		if _, err := w.c.Token(ctx, w.credential); err == nil && (!told || w.held.Load() != nil) {
			return
		}
	}
	w.s.t.Errorf("%s: no token at the start", w.name)
}

// Token implements oauth2.TokenSource, for those who are told.
func (w *worker) Token() (*oauth2.Token, error) {
	t := w.held.Load()
	if t == nil || time.Now().After(t.Expiry) {
		return nil, errors.New("was told of no token")
	}
	return &oauth2.Token{AccessToken: t.AccessToken.Reveal(), TokenType: "Bearer"}, nil
}

// sends makes requests that have a body every other time.
func (w *worker) sends(h *http.Client) func(context.Context, string) error {
	return func(ctx context.Context, id string) error {
		method, body := http.MethodGet, ""
		if strings.HasSuffix(id, "1") {
			method, body = http.MethodPost, "a report"
		}
		req, err := http.NewRequestWithContext(ctx, method, w.s.api.url+"/reports", strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set(idHeader, id)
		resp, err := h.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return refusal{resp.StatusCode}
		}
		return nil
	}
}

// calls makes calls over gRPC.
func (w *worker) calls() func(context.Context, string) error {
	conn, err := grpc.NewClient(w.s.api.grpcAddr, grpc.WithTransportCredentials(credentials.NewTLS(w.s.trust())),
		grpc.WithPerRPCCredentials(w.c.PerRPCCredentials(w.credential)))
	must(w.s.t, err)
	w.s.t.Cleanup(func() { _ = conn.Close() })
	return func(ctx context.Context, id string) error {
		_, err := grpc_health_v1.NewHealthClient(conn).Check(metadata.AppendToOutgoingContext(ctx, idHeader, id), &grpc_health_v1.HealthCheckRequest{})
		switch code := status.Code(err); {
		case code == codes.Unauthenticated && strings.Contains(err.Error(), "invalid_token"):
			return refusal{http.StatusUnauthorized}
		case code == codes.PermissionDenied:
			return refusal{http.StatusForbidden}
		}
		return err
	}
}

// persists does what a worker has to do that has no Transport: it reports a refused token and tries again, for as long as a Transport would.
func (w *worker) persists(do func(context.Context, string) error) func(context.Context, string) error {
	return func(ctx context.Context, id string) error {
		late := time.Now().Add(w.s.plan.wait)
		pause := time.NewTicker(100 * time.Millisecond)
		defer pause.Stop()
		var report time.Time // when the next one may help
		for {
			err := do(ctx, id)
			if err == nil || errors.Is(err, refusal{http.StatusForbidden}) || ctx.Err() != nil || time.Now().After(late) {
				return err
			}
			if errors.Is(err, refusal{http.StatusUnauthorized}) && time.Now().After(report) {
				report = time.Now().Add(w.reported(ctx, id))
			}
			<-pause.C
		}
	}
}

// reported reports the token of a request's last try, and says how long to wait before another report.
func (w *worker) reported(ctx context.Context, id string) time.Duration {
	tries := w.s.api.tries(id)
	tok, err := w.c.Token(ctx, w.credential)
	if err != nil || tok.AccessToken.Reveal() != tries[len(tries)-1].token {
		return 0 // there is another one by now
	}
	_, wait, err := w.c.ReportRejected(ctx, w.credential, tok, http.StatusUnauthorized, client.ErrorCode("invalid_token"))
	if err != nil {
		return floor
	}
	return wait
}

// work makes requests until ctx ends.
func (w *worker) work(ctx context.Context, done func(outcome)) {
	pause := time.NewTicker(150 * time.Millisecond)
	defer pause.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		o := outcome{id: fmt.Sprintf("%s-%d", w.name, n), credential: w.credential, remembers: true, beats: 3, typed: strings.HasPrefix(w.name, "http") || strings.HasPrefix(w.name, "transport"),
			from: time.Now()}
		o.err = w.do(context.WithoutCancel(ctx), o.id)
		o.to = time.Now()
		done(o)
		<-pause.C
	}
}
