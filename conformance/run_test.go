package conformance_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/server"
)

const (
	name         = "example/it" // the credential under test
	firstRefresh = "refresh-first"
	clientID     = "app-of-the-fixture"
	clientSecret = "s3cret-of-the-fixture"
	longest      = 500 * 24 * time.Hour // that a fixture may take

	everything = `version: 1
rules:
  - name: all
    identities: ["spiffe://brokertest.local/**"]
    actions: ["credential.*", "oauth_client.*", "token.*"]
    credentials: ["**"]
    oauth_clients: ["**"]
    scopes: ["**"]
    subjects: ["**"]
    audiences: ["**"]
`
)

// today is when fixtures begin.
var today = time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheOutcomeIsTheRightOneForTheUser(t *testing.T) {
	keys := newKeys(t)
	for _, f := range load(t) {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { f.run(t, keys) })
		})
	}
}

// run plays a fixture.
func (f fixture) run(t *testing.T, keys []string) {
	r := &runner{t: t, f: f, up: &upstream{}, keys: keys}
	time.Sleep(time.Until(today)) // a bubble starts in 2000, when no token had ever been given
	release := r.up.hold()
	r.b = brokertest.Start(t, r.config())
	defer r.b.Stop()
	if f.Sandbox != nil {
		r.up.sandbox = r.b.Sandbox
	}
	r.connect()
	defer r.leave()
	for i, s := range f.Steps {
		r.at = fmt.Sprintf("step %d (%s)", i+1, s.Do)
		if i > 0 {
			release = r.up.hold()
		}
		r.step(s, i == 0, release)
	}
	r.b.Stop()
	r.checkSilence()
}

// runner plays one fixture.
type runner struct {
	t    *testing.T
	f    fixture
	at   string // the step, for messages
	up   *upstream
	b    *brokertest.Broker
	keys []string // Google key files

	worker      tokenbrokerv1.TokenServiceClient
	credentials tokenbrokerv1.CredentialServiceClient
	clients     tokenbrokerv1.OAuthClientServiceClient
	stop        context.CancelFunc // ends the subscription; nil = there is none
	reader      sync.WaitGroup

	token *tokenbrokerv1.Token // that the worker has
	had   []string             // access tokens that it was given, in order

	mu       sync.Mutex
	out      bytes.Buffer // log, events, errors and states: nothing of it may hold a provider's text, a token or a secret
	warnings int
	told     string // the state that the subscriber was told last
	pushed   string // and the token that it was sent
	pushedAt time.Time
}

// config is that of the broker.
func (r *runner) config() brokertest.Config {
	p := provider.Profile{}
	if r.f.Profile != nil {
		p = *r.f.Profile
	}
	p.Base, p.With = r.f.Provider, r.f.With
	if r.f.Provider == "" && p.TokenEndpoint == "" {
		p.TokenEndpoint = "https://login.vendor.example/token"
	}
	return brokertest.Config{
		Policy: everything, Issuers: []sandbox.Issuer{r.issuer()}, Providers: map[string]provider.Profile{"it": p},
		Upstream: func(string) http.RoundTripper { return r.up },
		Limits:   server.Limits{ConnectionAge: longest, Heartbeat: 24 * time.Hour},
		CertLife: longest, WatchEvery: 24 * time.Hour, Log: r, Observe: r.observe,
	}
}

func (r *runner) issuer() sandbox.Issuer {
	s := r.f.Sandbox
	if s == nil {
		s = &fake{Rotation: "none"}
	}
	c := sandbox.Client{ID: clientID, Secrets: []string{clientSecret}, Auth: sandbox.AuthMethod(r.f.auth())}
	if r.f.auth() == "none" || r.f.auth() == "service_account" {
		c.Auth, c.Secrets = sandbox.AuthNone, nil
	}
	return sandbox.Issuer{Name: "it", Clients: []sandbox.Client{c}, Rotation: sandbox.Rotation(s.Rotation), Grace: time.Duration(s.Grace),
		KillsOld: s.KillsOld, AccessLife: time.Duration(s.AccessLife), RefreshLife: time.Duration(s.RefreshLife)}
}

// Write takes the broker's log.
func (r *runner) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *runner) hear(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.out, format+"\n", args...)
}

func (r *runner) observe(ev broker.Event) {
	r.hear("%+v", ev)
	r.mu.Lock()
	defer r.mu.Unlock()
	if ev.Kind == broker.EventExpiring {
		r.warnings++
	}
}

func (r *runner) connect() {
	conn := r.b.Worker()
	r.worker = tokenbrokerv1.NewTokenServiceClient(conn)
	operator := r.b.Operator()
	r.credentials = tokenbrokerv1.NewCredentialServiceClient(operator)
	r.clients = tokenbrokerv1.NewOAuthClientServiceClient(operator)
}

func (r *runner) leave() {
	if r.stop != nil {
		r.stop()
	}
	r.reader.Wait()
}

// outcome is what a call brought.
type outcome struct {
	err    error
	token  *tokenbrokerv1.Token
	report tokenbrokerv1.ReportOutcome
	began  time.Time
	sends  int // before it
	warned int
}

// step plays one step. Its replies come when everybody waits for them, so that it is the step's call that sees how the exchange ends.
func (r *runner) step(s step, first bool, release func()) {
	r.t.Helper()
	r.up.play(s.Replies)
	before := outcome{began: time.Now(), sends: r.up.count(), warned: r.warned()}
	if first {
		before.err = r.create()
	}
	done := make(chan outcome, 1)
	go func() { done <- r.act(s, before) }()
	synctest.Wait()
	release()
	got := <-done
	synctest.Wait()
	if got.token != nil {
		r.token = got.token
		r.had = append(r.had, got.token.GetAccessToken())
	}
	if err := r.up.finish(); err != nil && !s.Unchecked {
		r.t.Errorf("%s: %v", r.at, err)
	}
	r.check(s.Want, got)
}

// act does what a step says.
func (r *runner) act(s step, o outcome) outcome {
	verb, arg, _ := strings.Cut(s.Do, " ")
	ctx, cancel := context.WithTimeout(r.t.Context(), s.patience())
	defer cancel()
	if o.err != nil || verb == "create" {
		return o
	}
	switch verb {
	case "get":
		return r.get(ctx, s, o)
	case "herd":
		return r.herd(ctx, s, number(arg), o)
	case "report":
		return r.report(ctx, s, number(arg), o)
	case "nag":
		return r.nag(ctx, s, number(arg), o)
	case "refresh":
		_, o.err = r.credentials.RefreshCredential(ctx, &tokenbrokerv1.RefreshCredentialRequest{Credential: name})
	case "import":
		_, o.err = r.credentials.ImportRefreshToken(ctx, &tokenbrokerv1.ImportRefreshTokenRequest{Credential: name, RefreshToken: arg})
	case "secret":
		_, o.err = r.clients.AddClientSecret(ctx, &tokenbrokerv1.AddClientSecretRequest{OauthClient: "app", ClientSecret: arg})
	case "subscribe":
		r.subscribe()
	case "rival":
		which, code, _ := strings.Cut(arg, " ")
		status, err := r.up.rival(which)
		if err != nil || status != number(code) {
			r.t.Errorf("%s: the rival got status %d, %v", r.at, status, err)
		}
	case "off": // the broker is, for a while
		r.b.Shutdown()
		time.Sleep(r.duration(arg))
		r.b.Restart()
	case "wait":
		time.Sleep(r.duration(arg))
	default:
		r.t.Errorf("%s: there is no such verb", r.at)
	}
	return o
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // 0 is refused by whoever gets it
	return n
}

func (r *runner) duration(s string) time.Duration {
	var d provider.Duration
	if err := d.UnmarshalText([]byte(s)); err != nil {
		r.t.Errorf("%s: %v", r.at, err)
	}
	return time.Duration(d)
}
