package dev

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"text/template"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/starter"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

//go:embed templates/sample.txt
var sampleText string

const (
	sandboxSecret = "sandbox-secret-not-for-production"
	callers       = 50                     // of a herd
	gathering     = 500 * time.Millisecond // that a provider takes its time, so that a herd can gather
	sampleFloor   = 2 * time.Second        // so that keys need not be waited for
	flaky         = "flaky"                // the issuer that goes through faults by itself
	flakyClient   = "crm"                  // its only client
)

// sample is the scene without an operator's config.
type sample struct{ front *front }

// credential is a sample.
type credential struct{ name, issuer, client, scope string }

// samples are refreshed by client_credentials at "fast", by refresh tokens elsewhere. Each has an OAuth client of its own, so that what
// is done to one does not strike another.
func samples() []credential {
	return []credential{
		{"example/reports", "fast", "reports", "reports.read"},
		{"example/billing", "fast", "billing", "invoices.read"},
		{"example/drive", "rotating", "drive", "files.read"},
		{"example/crm", flaky, flakyClient, "contacts.read"},
	}
}

func find(name string) (credential, bool) {
	for _, c := range samples() {
		if c.name == name {
			return c, true
		}
	}
	return credential{}, false
}

func (p sample) prepare(f *folder, cfg *daemon.Config) (*sandbox.Server, map[string]role, error) {
	if !f.has(policyFile) {
		if err := f.clear(pkiNames()...); err != nil { // of another kind of run
			return nil, nil, err
		}
		if err := f.Make(); err != nil {
			return nil, nil, err
		}
	}
	clients, roles := map[string][]sandbox.Client{}, map[string]role{}
	for _, c := range samples() {
		roles[c.issuer] = role{c.issuer, append(roles[c.issuer].clients, c.client), sampleFloor}
		clients[c.issuer] = append(clients[c.issuer], sandbox.Client{ID: c.client, Secrets: []string{sandboxSecret}})
	}
	sb, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{
		{Name: "fast", Clients: clients["fast"], AccessLife: 15 * time.Second, Rotation: sandbox.RotateNone},
		{Name: "rotating", Clients: clients["rotating"], AccessLife: 20 * time.Second, Rotation: sandbox.RotateStrict},
		{Name: flaky, Clients: clients[flaky], AccessLife: 15 * time.Second, Rotation: sandbox.RotateGrace, Grace: 10 * time.Second},
		p.front.issuer(),
	}, AllowHTTP: true}) // its pages are on loopback
	if err != nil {
		return nil, nil, err
	}
	playFlaky(sb)
	cfg.KEKFile, cfg.PolicyFile, cfg.Providers, cfg.Transport = f.Path(kekFile), f.Path(policyFile), sampleProviders(), inPlace(sb)
	cfg.Providers[people] = p.front.profile(provider.Duration(sampleFloor))
	p.front.serve(api(sb))
	return sb, roles, nil
}

// pkiNames are the files of a folder that belong to one kind of run.
func pkiNames() []string {
	names := []string{kekFile, policyFile, "env", "worker.env", "identities", "sandbox"}
	for _, n := range []string{"ca", "server", "operator", "worker"} {
		names = append(names, n+".pem", n+".key")
	}
	return names
}

func sampleProviders() map[string]provider.Profile {
	no, grace, floor := false, provider.Duration(10*time.Second), provider.Duration(sampleFloor)
	return map[string]provider.Profile{
		"fast":     {TokenEndpoint: endpoint("fast"), Rotates: &no, Floor: &floor},
		"rotating": {TokenEndpoint: endpoint("rotating"), Floor: &floor},
		flaky:      {TokenEndpoint: endpoint(flaky), Grace: &grace, Floor: &floor},
	}
}

// endpoint is the token endpoint of an issuer of the sandbox. Its host is never looked up.
func endpoint(issuer string) string { return "https://sandbox.example/" + issuer + "/token" }

// playFlaky has the flaky issuer go through a round of faults again and again.
func playFlaky(sb *sandbox.Server) {
	for range 1000 {
		sb.Fail(flaky, sandbox.Fault{Times: 2}, sandbox.Fault{Name: "throttled", Status: http.StatusTooManyRequests, RetryAfter: 2 * time.Second},
			sandbox.Fault{Times: 2}, sandbox.Fault{Name: "answer lost", Stage: sandbox.AfterCommit, Drop: true},
			sandbox.Fault{Times: 2}, sandbox.Fault{Name: "down", Refuse: true, Times: 3})
	}
}

func (sample) hints(w *world) []string {
	return []string{"join in:  . " + starter.Quote(w.dir.Path("env")), "          go run ./cmd/tokenctl subscribe example/crm"}
}

// populate adds an OAuth client for each credential, the credentials, and workers. Fifty callers want the first one's token at once.
func (p sample) populate(ctx context.Context, s *session) (string, error) {
	w := s.world
	operator, err := w.client("operator")
	if err != nil {
		return "", err
	}
	defer func() { _ = operator.Close() }()
	w.sandbox.Fail("fast", sandbox.Fault{ClientID: samples()[0].client, Delay: gathering})
	for i, c := range samples() {
		if err := create(ctx, operator.Conn(), c, w.sandbox); err != nil {
			return "", err
		}
		if i == 0 {
			if err := herd(ctx, operator.Conn(), c.name, 0); err != nil {
				return "", fmt.Errorf("get the first token: %w", err)
			}
		}
	}
	if err := addPeople(ctx, operator.Conn()); err != nil {
		return "", err
	}
	s.fleet = newFleet(s)
	s.fleet.start(ctx)
	for name, identity := range map[string]string{"env": "operator", "worker.env": "worker"} {
		if err := w.dir.writeSecret(name, w.dir.Env(w.Addr, identity)+p.front.env()); err != nil {
			return "", err
		}
	}
	return fill(sampleText, map[string]any{"Addr": w.Addr, "Ops": w.Ops, "Env": starter.Quote(w.dir.Path("env")), "API": p.front.api()})
}

// fill fills in a text that is printed.
func fill(text string, values any) (string, error) {
	var b strings.Builder
	err := template.Must(template.New("").Funcs(template.FuncMap{"quote": starter.Quote}).Parse(text)).Execute(&b, values)
	return b.String(), err
}

// client connects to the broker with one of the folder's certificates.
func (w *world) client(identity string) (*client.Client, error) {
	return client.New(client.Config{Addr: w.Addr,
		Files: mtls.Files{Cert: w.dir.Path(identity + ".pem"), Key: w.dir.Path(identity + ".key"), CA: w.dir.Path("ca.pem")}})
}

// create adds a credential and its OAuth client, as an operator would.
func create(ctx context.Context, conn grpc.ClientConnInterface, c credential, sb *sandbox.Server) error {
	_, err := tokenbrokerv1.NewOAuthClientServiceClient(conn).CreateOAuthClient(ctx, &tokenbrokerv1.CreateOAuthClientRequest{
		OauthClient: c.client, ClientSecret: sandboxSecret, Spec: &tokenbrokerv1.OAuthClientSpec{Provider: c.issuer, ClientId: c.client,
			AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("create the OAuth client %s: %w", c.client, err)
	}
	r := &tokenbrokerv1.CreateCredentialRequest{Credential: c.name, Spec: &tokenbrokerv1.CredentialSpec{Provider: c.issuer,
		OauthClient: c.client, GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: []string{c.scope}, Owner: "tokenbrokerd dev"}}
	if c.issuer != "fast" {
		r.Spec.GrantType = tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN
		r.RefreshToken = sb.SeedRefreshToken(c.issuer, c.client, c.scope)
	}
	if _, err = tokenbrokerv1.NewCredentialServiceClient(conn).CreateCredential(ctx, r); err != nil {
		return fmt.Errorf("create the credential %s: %w", c.name, err)
	}
	return nil
}

func (sample) herd(ctx context.Context, w *world, name string, least time.Duration) error {
	c, err := w.client("worker")
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return herd(ctx, c.Conn(), name, least)
}

// herd has many callers ask for a token at once; least is for how long it has to be valid. It returns one of the errors, if any.
func herd(ctx context.Context, conn grpc.ClientConnInterface, name string, least time.Duration) error {
	r := &tokenbrokerv1.GetTokenRequest{Credential: name}
	if least > 0 {
		r.MinValidity = durationpb.New(least)
	}
	return together(func() error {
		_, err := tokenbrokerv1.NewTokenServiceClient(conn).GetToken(ctx, r, grpc.WaitForReady(true))
		return err
	})
}

// together does something for all callers of a herd at once, and returns one of the errors, if any.
func together(do func() error) error {
	errs := make(chan error, callers)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() { errs <- do() })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
