package consent_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/consent"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	operator = "spiffe://example.org/operator/ann"
	loopback = "http://127.0.0.1:40123/callback"
	public   = "https://consent.example.org"
)

// world is a Service over the real store. Provider and engine are fakes, for their faults.
type world struct {
	*consent.Service
	t       *testing.T
	kek     keyring.KEK
	path    string
	engine  *bolt.Engine
	store   *store.Store
	office  *office
	taker   *taker
	profile provider.Profile
	config  func(*consent.Config)
	halt    func()
	log     strings.Builder
}

// story runs a test in a bubble, with a credential of each consenting grant.
func story(t *testing.T, tell func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { tell(t, newWorld(t)) })
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "store.db"), office: newOffice()}
	w.profile = provider.Profile{Title: "Acme Files", AuthorizationEndpoint: "https://acme.example/authorize",
		DeviceAuthorizationEndpoint: "https://acme.example/device", LoopbackRedirect: "http://127.0.0.1:{port}/callback",
		Account: []string{"id_token.email"}, Scopes: []provider.ScopeInfo{{Name: "files.read", Meaning: "See your files"}}}
	kekPath := filepath.Join(t.TempDir(), "kek")
	if err := keyring.GenerateFileKEK(kekPath); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.kek, err = keyring.FileKEK(kekPath); err != nil {
		t.Fatal(err)
	}
	w.open()
	for name, grant := range map[string]tokenbroker.GrantType{"acme/code": tokenbroker.GrantAuthorizationCode, "acme/device": tokenbroker.GrantDeviceCode,
		"acme/import": tokenbroker.GrantRefreshToken, "acme/job": tokenbroker.GrantClientCredentials} {
		g := tokenbroker.Grant{State: tokenbroker.StatePending}
		if _, err := w.store.CreateCredential(t.Context(), tokenbroker.Credential{Name: name, Provider: "acme", Client: "acme", Grant: grant,
			Scopes: []string{"files.read", "files.write"}}, g); err != nil {
			t.Fatal(err)
		}
	}
	client := tokenbroker.OAuthClient{Name: "acme", Provider: "acme", ClientID: "app", Auth: tokenbroker.AuthClientSecretBasic,
		Secrets: []tokenbroker.ClientSecret{{ID: "one", Secret: tokenbroker.NewSecret("client-secret")}}}
	if _, err := w.store.PutClient(t.Context(), client, 0); err != nil {
		t.Fatal(err)
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.engine, err = bolt.Open(w.path, bolt.Options{}); err != nil {
		w.t.Fatal(err)
	}
	if w.store, err = store.Open(context.Background(), w.engine, store.Options{KEK: w.kek}); err != nil {
		w.t.Fatal(err)
	}
}

// start makes the Service and runs it.
func (w *world) start() {
	w.t.Helper()
	w.taker = &taker{store: w.store, trial: "READY"}
	cfg := consent.Config{Records: w.store, Configuration: w.store, Engine: w.taker, Codes: w.office, Devices: w.office, PublicURL: public,
		Profiles: func(name string) (provider.Profile, bool) { return w.profile, name == "acme" },
		Log:      slog.New(slog.NewTextHandler(&w.log, nil))}
	if w.config != nil {
		w.config(&cfg)
	}
	var err error
	if w.Service, err = consent.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	w.halt = func() { cancel(); <-done }
}

func (w *world) stop() {
	w.halt()
	_ = w.engine.Close()
}

// restart does what a new process would find.
func (w *world) restart() {
	w.stop()
	w.open()
	w.start()
}

func (w *world) begin(b tokenbroker.BeginConsent) tokenbroker.ConsentStart {
	w.t.Helper()
	start, err := w.Begin(w.t.Context(), b)
	if err != nil {
		w.t.Fatalf("begin: %v", err)
	}
	return start
}

func (w *world) beginLoopback() tokenbroker.ConsentStart {
	w.t.Helper()
	return w.begin(tokenbroker.BeginConsent{Credential: "acme/code", Identity: operator, Flow: tokenbroker.FlowLoopback, RedirectURI: loopback})
}

// complete brings a callback as the operator.
func (w *world) complete(id, callback string) (tokenbroker.Consent, error) {
	return w.Complete(w.t.Context(), id, operator, tokenbroker.NewSecret(callback))
}

func (w *world) stored(id string) tokenbroker.Consent {
	w.t.Helper()
	c, err := w.store.Consent(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) wantState(id string, want tokenbroker.ConsentState, code string) tokenbroker.Consent {
	w.t.Helper()
	c, err := w.Consent(w.t.Context(), id)
	if err != nil || c.State != want || c.Code != code {
		w.t.Errorf("consent: got %s %q (%v), want %s %q", c.State, c.Code, err, want, code)
	}
	return c
}

// grantOf is what a credential lives on.
func (w *world) grantOf(name string) tokenbroker.Grant {
	w.t.Helper()
	_, g, err := w.store.Load(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error: got %v, want %v", err, want)
	}
}

// office is a provider. Who is sent there consents as account.
type office struct {
	mu        sync.Mutex
	account   string
	granted   []string
	err       error // of Redeem
	hold      chan struct{}
	redeemed  []tokenbroker.CodeRequest
	revoked   []string
	revokeErr error
	serial    int
	polls     []error // in order; then success
	polledAt  []time.Time
	noRT      bool
}

func newOffice() *office { return &office{account: "ann@acme.example"} }

// AuthorizationURL implements consent.Codes.
func (o *office) AuthorizationURL(r tokenbroker.AuthorizationRequest) (string, error) {
	q := url.Values{"state": {r.State}, "redirect_uri": {r.RedirectURI}, "scope": {strings.Join(r.Scopes, " ")}, "nonce": {r.Nonce}}
	if r.Verifier.IsZero() {
		return "", &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "bad_code_verifier"}
	}
	return "https://acme.example/authorize?" + q.Encode(), nil
}

// visit is a person who goes to an authorization URL and says yes: the URL that the browser is sent to then.
func (o *office) visit(t *testing.T, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("redirect_uri") + "?" + url.Values{"code": {"code-1"}, "state": {u.Query().Get("state")}, "iss": {"https://acme.example"}}.Encode()
}

// Redeem implements consent.Codes.
func (o *office) Redeem(_ context.Context, r tokenbroker.CodeRequest) (tokenbroker.ExchangeReply, error) {
	o.mu.Lock()
	o.redeemed = append(o.redeemed, r)
	hold, err := o.hold, o.err
	o.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if err != nil {
		return tokenbroker.ExchangeReply{}, err
	}
	return o.grant(), nil
}

func (o *office) grant() tokenbroker.ExchangeReply {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.serial++
	r := tokenbroker.ExchangeReply{Account: o.account, Granted: o.granted, RefreshToken: tokenbroker.NewSecret("rt-" + string(rune('0'+o.serial))),
		Token: &tokenbroker.Token{AccessToken: tokenbroker.NewSecret("at-" + string(rune('0'+o.serial))), Type: "Bearer", Expiry: time.Now().Add(time.Hour), Obtained: time.Now()}}
	if o.noRT {
		r.RefreshToken = tokenbroker.Secret{}
	}
	return r
}

func (o *office) times() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.redeemed)
}

// CheckCallback implements consent.Codes.
func (o *office) CheckCallback(_ string, q url.Values) error {
	switch {
	case q.Get("iss") != "https://acme.example":
		return &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "iss_mismatch"}
	case q.Get("error") == "access_denied":
		return &tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant, Code: "access_denied", Sent: true}
	case q.Has("error"):
		return &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: q.Get("error"), Sent: true}
	}
	return nil
}

// Revoke implements consent.Codes.
func (o *office) Revoke(_ context.Context, r tokenbroker.RevokeRequest) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.revokeErr != nil {
		return o.revokeErr
	}
	o.revoked = append(o.revoked, r.Token.Reveal())
	return nil
}

func (o *office) ended() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.revoked, " ")
}

// StartDevice implements consent.Devices.
func (o *office) StartDevice(context.Context, tokenbroker.DeviceRequest) (tokenbroker.DeviceAuthorization, error) {
	return tokenbroker.DeviceAuthorization{DeviceCode: tokenbroker.NewSecret("device-code"), UserCode: "WDJB-MJHT",
		VerificationURI: "https://acme.example/activate", Expiry: time.Now().Add(10 * time.Minute), Interval: 5 * time.Second}, nil
}

// PollDevice implements consent.Devices.
func (o *office) PollDevice(context.Context, tokenbroker.DevicePoll) (tokenbroker.ExchangeReply, error) {
	o.mu.Lock()
	o.polledAt = append(o.polledAt, time.Now())
	if len(o.polls) > 0 {
		err := o.polls[0]
		o.polls = o.polls[1:]
		o.mu.Unlock()
		return tokenbroker.ExchangeReply{}, err
	}
	o.mu.Unlock()
	return o.grant(), nil
}

// taker is the engine: it stores what it is given.
type taker struct {
	mu     sync.Mutex
	store  *store.Store
	err    error
	trial  string
	trials int
}

// Adopt implements consent.Engine.
func (k *taker) Adopt(ctx context.Context, a tokenbroker.Adoption) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	a.Time = time.Now()
	_, _, err := k.store.Adopt(ctx, a)
	return err
}

// Trial implements consent.Engine.
func (k *taker) Trial(context.Context, string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trials++
	return k.trial
}

func (k *taker) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}
