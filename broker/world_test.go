package broker_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plan is what a world is made of. The zero plan is a strict, rotating provider.
type plan struct {
	issuer sandbox.Issuer
	traits tokenbroker.Traits
	config func(*broker.Config)
	answer answer                  // nil = the sandbox
	change func(*provider.Profile) // nil = nothing
	still  bool                    // Run is not started
	size   int64                   // bytes that the store's file may grow to; 0 = any
}

// world is a broker over the real store on bbolt and the real token-endpoint client, which talks to a sandbox.
type world struct {
	t      testing.TB
	plan   plan
	srv    *sandbox.Server
	engine *bolt.Engine
	kek    keyring.KEK
	store  *hooked
	up     *upstream
	log    *eventLog
	b      *broker.Broker
	halt   func()       // ends Run and waits for it
	ticks  atomic.Int64 // of the schedule
}

// run makes a world inside a synctest bubble.
func run(t *testing.T, p plan, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, p)) })
}

func newWorld(t testing.TB, p plan) *world {
	t.Helper()
	if !p.traits.Rotates && p.issuer.Rotation == "" {
		p.issuer.Rotation = sandbox.RotateNone
	}
	if p.issuer.Grace > 0 {
		p.issuer.Rotation = sandbox.RotateGrace
	}
	p.issuer.Name = "acme"
	p.issuer.Clients = []sandbox.Client{{ID: "app", Secrets: []string{"s3cret"}}}
	srv, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{p.issuer}})
	fatal(t, err)
	w := &world{t: t, plan: p, srv: srv, log: &eventLog{}, up: newUpstream(t, srv, p)}
	dir := t.TempDir()
	w.kek = newKEK(t, dir)
	w.engine, err = bolt.Open(filepath.Join(dir, "store.db"), bolt.Options{MaxSize: p.size})
	fatal(t, err)
	w.boot()
	t.Cleanup(func() {
		w.down()
		fatal(t, w.engine.Close())
	})
	return w
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKEK(t testing.TB, dir string) keyring.KEK {
	t.Helper()
	path := filepath.Join(dir, "kek")
	fatal(t, keyring.GenerateFileKEK(path))
	kek, err := keyring.FileKEK(path)
	fatal(t, err)
	return kek
}

// boot opens the store and starts a broker over it, as after a restart.
func (w *world) boot() {
	w.t.Helper()
	s, err := store.Open(context.Background(), w.engine, store.Options{KEK: w.kek, Exercise: w.exercise})
	fatal(w.t, err)
	w.store = &hooked{Store: s}
	cfg := broker.Config{
		Store:    w.store,
		Upstream: w.up,
		Judge:    w.up,
		Traits:   func(p string) (tokenbroker.Traits, bool) { return w.plan.traits, p == "acme" },
		Audit:    w.log.audit,
		Observe:  w.log.observe,
	}
	if w.plan.config != nil {
		w.plan.config(&cfg)
	}
	w.b, err = broker.New(context.Background(), cfg)
	fatal(w.t, err)
	w.halt = func() {}
	if !w.plan.still {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		b := w.b
		go func() {
			defer close(done)
			_ = b.RunCounting(ctx, &w.ticks) // ends with ctx's error
		}()
		w.halt = func() { cancel(); <-done }
	}
}

func (w *world) exercise(_ string, g tokenbroker.Grant) time.Time {
	return broker.LookAt(g, w.plan.traits)
}

// down ends the broker. Exchanges in flight are cut off.
func (w *world) down() {
	w.b.Close()
	w.halt()
}

// restart is down and boot.
func (w *world) restart() {
	w.t.Helper()
	w.down()
	w.boot()
}

// client makes the OAuth client "app".
func (w *world) client() {
	w.t.Helper()
	_, err := w.b.CreateClient(w.t.Context(), tokenbroker.OAuthClient{Name: "app", Provider: "acme", ClientID: "app",
		Auth: tokenbroker.AuthClientSecretBasic}, broker.NewSecret{Secret: tokenbroker.NewSecret("s3cret")}, false)
	fatal(w.t, err)
}

// credential is the credential "acme/jobs" with a refresh token of the sandbox.
func (w *world) credential(scopes ...string) broker.NewCredential {
	return broker.NewCredential{
		Credential:   tokenbroker.Credential{Name: "acme/jobs", Provider: "acme", Client: "app", Grant: tokenbroker.GrantRefreshToken, Scopes: scopes},
		RefreshToken: tokenbroker.NewSecret(w.srv.SeedRefreshToken("acme", "app", scopes...)),
	}
}

// create makes client and credential, and waits until the credential was tried.
func (w *world) create(scopes ...string) {
	w.t.Helper()
	w.client()
	w.createOnly(scopes...)
}

func (w *world) createOnly(scopes ...string) {
	w.t.Helper()
	_, err := w.b.CreateCredential(w.t.Context(), w.credential(scopes...))
	fatal(w.t, err)
	w.settle()
}

// createMachine makes client and credential "acme/jobs" of grant client_credentials.
func (w *world) createMachine(scopes ...string) {
	w.t.Helper()
	w.client()
	n := w.credential(scopes...)
	n.Credential.Grant, n.RefreshToken = tokenbroker.GrantClientCredentials, tokenbroker.Secret{}
	_, err := w.b.CreateCredential(w.t.Context(), n)
	fatal(w.t, err)
	w.settle()
}

// settle waits until all that can happen now has happened.
func (w *world) settle() {
	if _, ok := w.t.(*testing.T); ok {
		synctest.Wait()
	}
}

// pass lets time pass and all that it brings happen.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	w.settle()
}

func (w *world) ask(r broker.Request) (*broker.Snapshot, error) {
	if r.Credential == "" {
		r.Credential = "acme/jobs"
	}
	if r.Holder == "" {
		r.Holder = "job"
	}
	return w.b.Token(w.t.Context(), r)
}

// get is ask for the credential's own variant, which has to go well.
func (w *world) get() *broker.Snapshot {
	w.t.Helper()
	s, err := w.ask(broker.Request{})
	fatal(w.t, err)
	if s.Token == nil {
		w.t.Fatal("got a snapshot without a token and no error")
	}
	return s
}

// status is the credential as an operator sees it.
func (w *world) status() broker.Status {
	w.t.Helper()
	st, err := w.b.Credential(w.t.Context(), "acme/jobs")
	fatal(w.t, err)
	return st
}

func (w *world) wantState(want tokenbroker.State) {
	w.t.Helper()
	if got := w.status().Snapshot.State; got != want {
		w.t.Errorf("got state %s, want %s", got, want)
	}
}

// wantSent checks how many exchanges there were in all.
func (w *world) wantSent(want int) {
	w.t.Helper()
	if got := w.up.count(); got != want {
		w.t.Errorf("got %d exchanges, want %d", got, want)
	}
}

// grant reads the grant as the store has it.
func (w *world) grant() tokenbroker.Grant {
	w.t.Helper()
	_, g, err := w.store.Store.Load(w.t.Context(), "acme/jobs")
	fatal(w.t, err)
	return g
}

// orphans reads the results that were kept apart.
func (w *world) orphans() []store.Orphan {
	w.t.Helper()
	var list []store.Orphan
	for o, err := range w.store.Store.(*store.Store).Orphans(w.t.Context()) {
		fatal(w.t, err)
		list = append(list, o)
	}
	return list
}

// hooked is a store with a hook before and after each of its methods that write or load. A hook may block; its error takes the
// place of the method's.
type hooked struct {
	broker.Store
	mu            sync.Mutex
	before, after func(ctx context.Context, op string) error
}

func (h *hooked) hook(before, after func(ctx context.Context, op string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before, h.after = before, after
}

func (h *hooked) around(ctx context.Context, op string, do func() error) error {
	h.mu.Lock()
	before, after := h.before, h.after
	h.mu.Unlock()
	if before != nil {
		if err := before(ctx, op); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if after != nil {
		return after(ctx, op)
	}
	return nil
}

func (h *hooked) Prove(ctx context.Context) error {
	return h.around(ctx, "prove", func() error { return h.Store.Prove(ctx) })
}

func (h *hooked) Begin(ctx context.Context, b tokenbroker.Begin) (g tokenbroker.Grant, err error) {
	err = h.around(ctx, "begin", func() error { g, err = h.Store.Begin(ctx, b); return err })
	return g, err
}

func (h *hooked) Commit(ctx context.Context, o tokenbroker.Outcome) (g tokenbroker.Grant, tok tokenbroker.Token, err error) {
	err = h.around(ctx, "commit", func() error { g, tok, err = h.Store.Commit(ctx, o); return err })
	return g, tok, err
}

func (h *hooked) Abort(ctx context.Context, v tokenbroker.Verdict) (g tokenbroker.Grant, err error) {
	err = h.around(ctx, "abort", func() error { g, err = h.Store.Abort(ctx, v); return err })
	return g, err
}

func (h *hooked) Load(ctx context.Context, name string) (c tokenbroker.Credential, g tokenbroker.Grant, err error) {
	err = h.around(ctx, "load", func() error { c, g, err = h.Store.Load(ctx, name); return err })
	return c, g, err
}

func (h *hooked) Adopt(ctx context.Context, a tokenbroker.Adoption) (g tokenbroker.Grant, tok tokenbroker.Token, err error) {
	err = h.around(ctx, "adopt", func() error { g, tok, err = h.Store.Adopt(ctx, a); return err })
	return g, tok, err
}

func (h *hooked) DeleteCredential(ctx context.Context, name string, version uint64) error {
	return h.around(ctx, "delete", func() error { return h.Store.DeleteCredential(ctx, name, version) })
}

// failing makes a hook that fails the operations named.
func failing(err error, ops ...string) func(context.Context, string) error {
	return func(_ context.Context, op string) error {
		if slices.Contains(ops, op) {
			return err
		}
		return nil
	}
}

// answer takes the place of a token endpoint. n counts requests from 1.
type answer func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error)

// upstream is the token-endpoint client, or an answer in its place. It counts and remembers what was sent.
type upstream struct {
	*grant.Client
	mu     sync.Mutex
	answer answer
	sent   []tokenbroker.ExchangeRequest
	times  []time.Time

	revoke  func(n int, r tokenbroker.RevokeRequest) error // nil = the client's
	revoked []tokenbroker.RevokeRequest
	check   func(r tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) // nil = the client's
}

func (u *upstream) Revoke(ctx context.Context, r tokenbroker.RevokeRequest) error {
	u.mu.Lock()
	u.revoked = append(u.revoked, r)
	n, revoke := len(u.revoked), u.revoke
	u.mu.Unlock()
	if revoke == nil {
		return u.Client.Revoke(ctx, r)
	}
	return revoke(n, r)
}

func (u *upstream) Check(ctx context.Context, r tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) {
	if u.check == nil {
		return u.Client.Check(ctx, r)
	}
	return u.check(r)
}

// revocations lists the tokens that were to be revoked, in turn.
func (u *upstream) revocations() (list []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range u.revoked {
		list = append(list, string(r.Kind)+" "+r.Token.Reveal())
	}
	return list
}

func newUpstream(t testing.TB, srv *sandbox.Server, p plan) *upstream {
	t.Helper()
	profile := provider.Profile{TokenEndpoint: "https://sandbox.test/acme/token", Downscopes: &p.traits.Downscopes, Rotates: &p.traits.Rotates}
	if p.change != nil {
		p.change(&profile)
	}
	cat, err := provider.New(map[string]provider.Profile{"acme": profile})
	fatal(t, err)
	c, err := grant.New(grant.Config{Catalogue: cat, Transport: func(string) http.RoundTripper { return srv }})
	fatal(t, err)
	return &upstream{Client: c, answer: p.answer}
}

func (u *upstream) Exchange(ctx context.Context, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
	u.mu.Lock()
	u.sent, u.times = append(u.sent, r), append(u.times, time.Now())
	n, answer := len(u.sent), u.answer
	u.mu.Unlock()
	if answer == nil {
		return u.Client.Exchange(ctx, r)
	}
	return answer(ctx, n, r)
}

func (u *upstream) use(a answer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = a
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.sent)
}

// request returns the nth request, counted from 1, and when it was sent.
func (u *upstream) request(n int) (tokenbroker.ExchangeRequest, time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent[n-1], u.times[n-1]
}

// gives answers with tokens of a life, and with a new refresh token each time if rotating.
func gives(life time.Duration, rotating bool) answer {
	return func(_ context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
		reply := tokenbroker.ExchangeReply{Token: fresh(fmt.Sprintf("at-%d", n), life, r.Variant.Scopes), Sent: time.Now()}
		if rotating {
			reply.RefreshToken = tokenbroker.NewSecret(fmt.Sprintf("rt-%d", n))
		}
		return reply, nil
	}
}

func fresh(text string, life time.Duration, scopes []string) *tokenbroker.Token {
	now := time.Now()
	return &tokenbroker.Token{AccessToken: tokenbroker.NewSecret(text), Type: "Bearer", Scopes: scopes, Obtained: now, Expiry: now.Add(life)}
}

// refuses answers with a failure.
func refuses(f tokenbroker.Failure) answer {
	return func(context.Context, int, tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
		return tokenbroker.ExchangeReply{Sent: time.Now()}, &f
	}
}

// after answers like first for n requests, then like rest.
func after(n int, first, rest answer) answer {
	return func(ctx context.Context, i int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
		if i <= n {
			return first(ctx, i, r)
		}
		return rest(ctx, i, r)
	}
}

// held answers once let go.
func held(let <-chan struct{}, a answer) answer {
	return func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
		select {
		case <-let:
			return a(ctx, n, r)
		case <-ctx.Done():
			return tokenbroker.ExchangeReply{}, &tokenbroker.Failure{Class: tokenbroker.ClassAmbiguous, Code: "timeout", Sent: true}
		}
	}
}

// eventLog keeps events.
type eventLog struct {
	mu      sync.Mutex
	audited []broker.Event
	seen    []broker.Event
	refuse  func(context.Context, broker.Event) error
}

func (l *eventLog) audit(ctx context.Context, ev broker.Event) error {
	l.mu.Lock()
	refuse := l.refuse
	l.mu.Unlock()
	if refuse != nil {
		if err := refuse(ctx, ev); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.audited = append(l.audited, ev)
	return nil
}

func (l *eventLog) observe(ev broker.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, ev)
}

func (l *eventLog) refuseWith(refuse func(context.Context, broker.Event) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

// of returns the events of a kind that were observed.
func (l *eventLog) of(k broker.Kind) []broker.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.seen), func(ev broker.Event) bool { return ev.Kind != k })
}

// recorded is how many events of a kind went to the trail.
func (l *eventLog) recorded(k broker.Kind) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ev := range l.audited {
		if ev.Kind == k {
			n++
		}
	}
	return n
}

// reader is a subscriber that keeps what its feed gives.
type reader struct {
	t     testing.TB
	feed  *broker.Feed
	mu    sync.Mutex
	woken int
	got   []broker.Update
}

// subscribe opens a feed on selectors, all of them allowed unless admit says otherwise.
func (w *world) subscribe(admit func(broker.Selection) error, sels ...broker.Selection) *reader {
	w.t.Helper()
	r := &reader{t: w.t}
	r.feed = w.b.NewFeed(broker.FeedConfig{
		Holder: "job",
		Admit: func(_ string, s broker.Selection, _ tokenbroker.Variant, _ []string) error {
			if admit == nil {
				return nil
			}
			return admit(s)
		},
		Wake: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.woken++
		},
	})
	w.t.Cleanup(r.feed.Close)
	if len(sels) == 0 {
		sels = []broker.Selection{{Credential: "acme/jobs"}}
	}
	for _, s := range sels {
		fatal(w.t, r.feed.Add(w.t.Context(), s))
	}
	return r
}

// take reads all that there is.
func (r *reader) take() []broker.Update {
	r.t.Helper()
	var list []broker.Update
	for {
		u, ok, err := r.feed.Next()
		fatal(r.t, err)
		if !ok {
			r.got = append(r.got, list...)
			return list
		}
		list = append(list, u)
	}
}

// one reads exactly one update.
func (r *reader) one() broker.Update {
	r.t.Helper()
	list := r.take()
	if len(list) != 1 {
		r.t.Fatalf("got %d updates, want 1: %+v", len(list), list)
	}
	return list[0]
}

func (r *reader) wakes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.woken
}
