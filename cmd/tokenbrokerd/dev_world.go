package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

const (
	devClient = "jobs"
	devSecret = "sandbox-secret-not-for-production"
)

// devCredential is a credential that dev makes.
type devCredential struct{ name, issuer, scope string }

// devCredentials are refreshed by client_credentials at "fast", by refresh tokens elsewhere.
var devCredentials = []devCredential{
	{"example/reports", "fast", "reports.read"},
	{"example/billing", "fast", "invoices.read"},
	{"example/drive", "rotating", "files.read"},
	{"example/crm", "flaky", "contacts.read"},
}

// devSandbox is a provider with three issuers. The flaky one goes through a round of faults again and again.
func devSandbox() (*sandbox.Server, error) {
	clients := []sandbox.Client{{ID: devClient, Secrets: []string{devSecret}}}
	s, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{
		{Name: "fast", Clients: clients, AccessLife: 15 * time.Second, Rotation: sandbox.RotateNone},
		{Name: "rotating", Clients: clients, AccessLife: 20 * time.Second, Rotation: sandbox.RotateStrict},
		{Name: "flaky", Clients: clients, AccessLife: 15 * time.Second, Rotation: sandbox.RotateGrace, Grace: 10 * time.Second},
	}})
	if err != nil {
		return nil, err
	}
	for range 1000 {
		s.Fail("flaky", sandbox.Fault{Times: 2}, sandbox.Fault{Name: "throttled", Status: http.StatusTooManyRequests, RetryAfter: 2 * time.Second},
			sandbox.Fault{Times: 2}, sandbox.Fault{Name: "answer lost", Stage: sandbox.AfterCommit, Drop: true},
			sandbox.Fault{Times: 2}, sandbox.Fault{Name: "down", Refuse: true, Times: 3})
	}
	return s, nil
}

func devProviders() map[string]provider.Profile {
	no, grace := false, provider.Duration(10*time.Second)
	at := func(issuer string) string { return "https://sandbox.example/" + issuer + "/token" }
	return map[string]provider.Profile{
		"fast":     {TokenEndpoint: at("fast"), Rotates: &no},
		"rotating": {TokenEndpoint: at("rotating")},
		"flaky":    {TokenEndpoint: at("flaky"), Grace: &grace},
	}
}

// conn connects to the broker with one of the folder's certificates.
func (d *dev) conn(name string) (*grpc.ClientConn, error) {
	source, err := mtls.Open(mtls.Files{Cert: d.path(name + ".pem"), Key: d.path(name + ".key"), CA: d.path("ca.pem")})
	if err != nil {
		return nil, err
	}
	tlsConfig, err := source.ClientTLS("spiffe://" + d.TrustDomain + "/broker")
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(d.Addr, grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)))
}

// seed adds an OAuth client per issuer and the credentials, as an operator would. Fifty callers want the first one's token at once.
func (d *dev) seed(ctx context.Context) error {
	conn, err := d.conn("operator")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for issuer := range devProviders() {
		_, err := tokenbrokerv1.NewOAuthClientServiceClient(conn).CreateOAuthClient(ctx, &tokenbrokerv1.CreateOAuthClientRequest{
			OauthClient: issuer, ClientSecret: devSecret, Spec: &tokenbrokerv1.OAuthClientSpec{Provider: issuer, ClientId: devClient,
				AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("create OAuth client %s: %w", issuer, err)
		}
	}
	d.sandbox.Fail("fast", sandbox.Fault{Name: "slow", Delay: 300 * time.Millisecond}) // time for a herd to gather
	for _, c := range devCredentials {
		if err := d.create(ctx, conn, c); err != nil {
			return fmt.Errorf("create credential %s: %w", c.name, err)
		}
		if c == devCredentials[0] {
			if err := herd(ctx, tokenbrokerv1.NewTokenServiceClient(conn), c.name, 50); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *dev) create(ctx context.Context, conn *grpc.ClientConn, c devCredential) error {
	r := &tokenbrokerv1.CreateCredentialRequest{Credential: c.name, Spec: &tokenbrokerv1.CredentialSpec{Provider: c.issuer,
		OauthClient: c.issuer, GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: []string{c.scope}, Owner: "tokenbrokerd dev"}}
	if c.issuer != "fast" {
		r.Spec.GrantType = tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN
		r.RefreshToken = d.sandbox.SeedRefreshToken(c.issuer, devClient, c.scope)
	}
	_, err := tokenbrokerv1.NewCredentialServiceClient(conn).CreateCredential(ctx, r)
	return err
}

// herd has n callers ask for one token at once.
func herd(ctx context.Context, tokens tokenbrokerv1.TokenServiceClient, credential string, n int) error {
	errs := make(chan error, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			_, err := tokens.GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: credential})
			errs <- err
		})
	}
	wg.Wait()
	for range n {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// work is one worker: it subscribes to every credential, tries each token at the API, and connects again when the stream ends.
func (d *dev) work(ctx context.Context, number int) {
	conn, err := d.conn("worker")
	if err != nil {
		d.say(fmt.Sprintf("worker %d: %v", number, err))
		return
	}
	defer func() { _ = conn.Close() }()
	for ctx.Err() == nil {
		err := d.subscribe(ctx, tokenbrokerv1.NewTokenServiceClient(conn), number)
		if ctx.Err() != nil {
			return
		}
		d.say(fmt.Sprintf("worker %d: %v; it connects again", number, err))
		timer := time.NewTimer(time.Second)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func (d *dev) subscribe(ctx context.Context, tokens tokenbrokerv1.TokenServiceClient, number int) error {
	r := &tokenbrokerv1.SubscribeRequest{}
	for _, c := range devCredentials {
		r.Selectors = append(r.Selectors, &tokenbrokerv1.Selector{Credential: c.name})
	}
	stream, err := tokens.Subscribe(ctx, r)
	if err != nil {
		return err
	}
	seen := uint64(0)
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if u := m.GetUpdate(); u.GetToken() != nil && u.GetGeneration() > seen && number == 1 { // one voice is enough
			seen = u.GetGeneration()
			d.say(fmt.Sprintf("%-18s  generation %d reached the workers; the API says %d", u.GetSelector().GetCredential(),
				u.GetGeneration(), d.use(ctx, u)))
		}
	}
}

// use calls the sandbox's API with a token, and returns its status.
func (d *dev) use(ctx context.Context, u *tokenbrokerv1.Update) int {
	issuer := ""
	for _, c := range devCredentials {
		if c.name == u.GetSelector().GetCredential() {
			issuer = c.issuer
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://sandbox.example/"+issuer+"/resource", nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", u.GetToken().GetTokenType()+" "+u.GetToken().GetAccessToken())
	resp, err := d.sandbox.RoundTrip(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (d *dev) say(text string) {
	select {
	case d.verdict <- text:
	default: // nobody waits for a line
	}
}
