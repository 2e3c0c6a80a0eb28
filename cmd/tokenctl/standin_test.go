package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// standIn answers for a broker where a test needs answers that no broker gives on demand: a hostile URL, a consent that nobody completes,
// a refusal at a certain moment. It keeps what it was asked.
type standIn struct {
	tokenbrokerv1.UnimplementedCredentialServiceServer
	tokenbrokerv1.UnimplementedOAuthClientServiceServer
	tokenbrokerv1.UnimplementedConsentServiceServer
	tokenbrokerv1.UnimplementedProviderServiceServer
	tokenbrokerv1.UnimplementedAuditServiceServer
	files mtls.Files
	addr  string

	mu      sync.Mutex
	asked   []proto.Message
	creds   map[string]*tokenbrokerv1.Credential
	clients map[string]*tokenbrokerv1.OAuthClient
	begun   *tokenbrokerv1.BeginConsentResponse
	states  []tokenbrokerv1.ConsentState // what GetConsent says, one after the other; the last stays
	fails   map[string]error             // by the name of the request
	check   *tokenbrokerv1.CheckCredentialResponse
	revoked []*tokenbrokerv1.Revocation
	back    string                       // the provider's loopback redirect
	tails   []func(out tailStream) error // what TailAuditRecords does, one after the other; the last stays
}

const standInID = "spiffe://standin.local/broker"

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	ca, err := mtls.NewCA("stand-in", time.Hour, "standin.local")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	issue := func(name string, tmpl mtls.Template) mtls.Files {
		cert, key, err := ca.Issue(tmpl)
		if err != nil {
			t.Fatal(err)
		}
		f := mtls.Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}
		for path, data := range map[string][]byte{f.CA: ca.CertPEM(), f.Cert: cert, f.Key: key} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return f
	}
	source, err := mtls.Open(issue("server", mtls.Template{SPIFFEID: standInID, Server: true}))
	if err != nil {
		t.Fatal(err)
	}
	b := &standIn{files: issue("operator", mtls.Template{SPIFFEID: "spiffe://standin.local/operator", Client: true}),
		creds: map[string]*tokenbrokerv1.Credential{}, clients: map[string]*tokenbrokerv1.OAuthClient{}, fails: map[string]error{},
		begun: &tokenbrokerv1.BeginConsentResponse{AuthorizationUrl: "https://provider.example/authorize?state=st4te"},
		back:  "http://127.0.0.1:{port}/callback"}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(source.ServerTLS(mtls.ServerOptions{}))))
	tokenbrokerv1.RegisterCredentialServiceServer(srv, b)
	tokenbrokerv1.RegisterOAuthClientServiceServer(srv, b)
	tokenbrokerv1.RegisterConsentServiceServer(srv, b)
	tokenbrokerv1.RegisterProviderServiceServer(srv, b)
	tokenbrokerv1.RegisterAuditServiceServer(srv, b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return b
}

// result is what a command printed, and its exit status.
type result struct {
	out, errs string
	exit      int
}

func (r result) all() string { return r.out + r.errs }

// run runs tokenctl in this process against the stand-in.
func (b *standIn) run(t *testing.T, in string, browse func(string) error, args ...string) result {
	t.Helper()
	return b.runIn(t, t.Context(), in, browse, args...)
}

func (b *standIn) runIn(t *testing.T, ctx context.Context, in string, browse func(string) error, args ...string) result {
	t.Helper()
	out, errs := &page{more: make(chan struct{}, 1)}, &page{more: make(chan struct{}, 1)}
	c := &cli{in: strings.NewReader(in), out: out, errs: errs, browse: browse}
	exit := c.run(ctx, append([]string{"--addr", b.addr, "--ca", b.files.CA, "--cert", b.files.Cert, "--key", b.files.Key, "--server-name", standInID}, args...))
	return result{out: out.shown(), errs: errs.shown(), exit: exit}
}

func (b *standIn) note(m proto.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, proto.Clone(m))
	return b.fails[string(m.ProtoReflect().Descriptor().Name())]
}

// last is the last request of a type.
func last[M proto.Message](t *testing.T, b *standIn) M {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range slices.Backward(b.asked) {
		if m, ok := m.(M); ok {
			return m
		}
	}
	var none M
	t.Fatalf("no %T came", none)
	return none
}

// count is how many requests of a type came.
func count[M proto.Message](b *standIn) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.asked {
		if _, ok := m.(M); ok {
			n++
		}
	}
	return n
}

// refuse is an error as the broker makes it.
func refuse(code codes.Code, reason, text string) error { return refuseGrant(code, reason, text, "") }

// refuseGrant is refuse with the grant of the credential, as the broker tells it.
func refuseGrant(code codes.Code, reason, text, grant string) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "github.com/tokenbroker/tokenbroker"}
	if grant != "" {
		info.Metadata = map[string]string{"grantType": grant}
	}
	st, err := status.New(code, text).WithDetails(info)
	if err != nil {
		return err
	}
	return st.Err()
}

func (b *standIn) GetCredential(_ context.Context, r *tokenbrokerv1.GetCredentialRequest) (*tokenbrokerv1.GetCredentialResponse, error) {
	if err := b.note(r); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.creds[r.GetCredential()]
	if c == nil {
		return nil, refuse(codes.NotFound, "CREDENTIAL_NOT_FOUND", "credential not found, or not for this identity")
	}
	return &tokenbrokerv1.GetCredentialResponse{Credential: c}, nil
}

func (b *standIn) CreateCredential(_ context.Context, r *tokenbrokerv1.CreateCredentialRequest) (*tokenbrokerv1.CreateCredentialResponse, error) {
	if err := b.note(r); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &tokenbrokerv1.Credential{Credential: r.GetCredential(), Spec: r.GetSpec(), Status: &tokenbrokerv1.CredentialStatus{
		State: tokenbrokerv1.CredentialState_CREDENTIAL_STATE_PENDING}}
	if !consents(r.GetSpec().GetGrantType()) {
		c.Status.State = tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY
	}
	if !r.GetValidateOnly() {
		c.Uid, c.CreateTime, b.creds[r.GetCredential()] = "uid", timestamppb.Now(), c
	}
	return &tokenbrokerv1.CreateCredentialResponse{Credential: c, Warnings: []string{"mind the \x1b[31mgap"}}, nil
}

func (b *standIn) UpdateCredential(_ context.Context, r *tokenbrokerv1.UpdateCredentialRequest) (*tokenbrokerv1.UpdateCredentialResponse, error) {
	return &tokenbrokerv1.UpdateCredentialResponse{}, b.note(r)
}

func (b *standIn) RevokeCredentials(_ context.Context, r *tokenbrokerv1.RevokeCredentialsRequest) (*tokenbrokerv1.RevokeCredentialsResponse, error) {
	return &tokenbrokerv1.RevokeCredentialsResponse{Revocations: b.revoked}, b.note(r)
}

func (b *standIn) CheckCredential(_ context.Context, r *tokenbrokerv1.CheckCredentialRequest) (*tokenbrokerv1.CheckCredentialResponse, error) {
	return b.check, b.note(r)
}

func (b *standIn) GetOAuthClient(_ context.Context, r *tokenbrokerv1.GetOAuthClientRequest) (*tokenbrokerv1.GetOAuthClientResponse, error) {
	if err := b.note(r); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.clients[r.GetOauthClient()]
	if c == nil {
		return nil, refuse(codes.NotFound, "OAUTH_CLIENT_NOT_FOUND", "OAuth client not found")
	}
	return &tokenbrokerv1.GetOAuthClientResponse{OauthClient: c}, nil
}

func (b *standIn) CreateOAuthClient(_ context.Context, r *tokenbrokerv1.CreateOAuthClientRequest) (*tokenbrokerv1.CreateOAuthClientResponse, error) {
	if err := b.note(r); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &tokenbrokerv1.OAuthClient{OauthClient: r.GetOauthClient(), Spec: proto.CloneOf(r.GetSpec())}
	if r.GetPrivateKey() != "" {
		c.Spec.AccountId = "104857600000000000001"
	}
	if !r.GetValidateOnly() {
		b.clients[r.GetOauthClient()] = c
	}
	return &tokenbrokerv1.CreateOAuthClientResponse{OauthClient: c}, nil
}

func (b *standIn) UpdateOAuthClient(_ context.Context, r *tokenbrokerv1.UpdateOAuthClientRequest) (*tokenbrokerv1.UpdateOAuthClientResponse, error) {
	return &tokenbrokerv1.UpdateOAuthClientResponse{}, b.note(r)
}

func (b *standIn) DeleteOAuthClient(_ context.Context, r *tokenbrokerv1.DeleteOAuthClientRequest) (*tokenbrokerv1.DeleteOAuthClientResponse, error) {
	return &tokenbrokerv1.DeleteOAuthClientResponse{}, b.note(r)
}

func (b *standIn) ListOAuthClients(_ context.Context, r *tokenbrokerv1.ListOAuthClientsRequest) (*tokenbrokerv1.ListOAuthClientsResponse, error) {
	if err := b.note(r); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	resp := &tokenbrokerv1.ListOAuthClientsResponse{}
	for _, name := range keys(b.clients) {
		resp.OauthClients = append(resp.OauthClients, b.clients[name])
	}
	return resp, nil
}

func (b *standIn) BeginConsent(_ context.Context, r *tokenbrokerv1.BeginConsentRequest) (*tokenbrokerv1.BeginConsentResponse, error) {
	if err := b.note(r); err != nil {
		return nil, err
	}
	resp := proto.CloneOf(b.begun)
	resp.Consent = b.consent(r.GetCredential(), tokenbrokerv1.ConsentState_CONSENT_STATE_PENDING)
	resp.Consent.Flow, resp.RedirectUri = r.GetFlow(), or(r.GetRedirectUri(), "http://127.0.0.1/callback")
	return resp, nil
}

func (b *standIn) consent(credential string, state tokenbrokerv1.ConsentState) *tokenbrokerv1.Consent {
	return &tokenbrokerv1.Consent{ConsentId: "c0nsent", Credential: credential, State: state, Scopes: []string{"files.read", "files.write"},
		GrantedScopes: []string{"files.read"}, MissingScopes: []string{"files.write"}, Account: "reports@corp.example", Trial: "READY",
		ExpireTime: timestamppb.New(time.Now().Add(10 * time.Minute))}
}

// connect is the credential as it stands when somebody has consented.
func (b *standIn) connect(name string) *tokenbrokerv1.Credential {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.creds[name]
	if c == nil {
		return nil
	}
	c = proto.CloneOf(c)
	c.Status = &tokenbrokerv1.CredentialStatus{State: tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY, HasRefreshToken: true, RotationSeen: true,
		Account: "reports@corp.example", ConsentTime: timestamppb.Now(), ExpireTime: timestamppb.New(time.Now().Add(time.Hour))}
	b.creds[name] = c
	return c
}

func (b *standIn) CompleteConsent(_ context.Context, r *tokenbrokerv1.CompleteConsentRequest) (*tokenbrokerv1.CompleteConsentResponse, error) {
	if err := b.note(r); err != nil {
		return nil, err
	}
	if strings.Contains(r.GetCallbackUrl(), "error=") {
		return &tokenbrokerv1.CompleteConsentResponse{Consent: &tokenbrokerv1.Consent{ConsentId: "c0nsent", Credential: "example/drive", Code: "access_denied",
			State: tokenbrokerv1.ConsentState_CONSENT_STATE_DENIED}}, nil
	}
	return &tokenbrokerv1.CompleteConsentResponse{Consent: b.consent("example/drive", tokenbrokerv1.ConsentState_CONSENT_STATE_DONE), Credential: b.connect("example/drive")}, nil
}

func (b *standIn) GetConsent(_ context.Context, r *tokenbrokerv1.GetConsentRequest) (*tokenbrokerv1.GetConsentResponse, error) {
	if err := b.note(r); err != nil {
		return nil, err
	}
	b.mu.Lock()
	state := b.states[0]
	if len(b.states) > 1 {
		b.states = b.states[1:]
	}
	b.mu.Unlock()
	if state == tokenbrokerv1.ConsentState_CONSENT_STATE_DONE {
		b.connect("example/drive")
	}
	return &tokenbrokerv1.GetConsentResponse{Consent: b.consent("example/drive", state)}, nil
}

func (b *standIn) ListConsents(_ context.Context, r *tokenbrokerv1.ListConsentsRequest) (*tokenbrokerv1.ListConsentsResponse, error) {
	return &tokenbrokerv1.ListConsentsResponse{Consents: []*tokenbrokerv1.Consent{
		b.consent("example/drive", tokenbrokerv1.ConsentState_CONSENT_STATE_AWAITING_ACCEPTANCE)}}, b.note(r)
}

func (b *standIn) AcceptConsent(_ context.Context, r *tokenbrokerv1.AcceptConsentRequest) (*tokenbrokerv1.AcceptConsentResponse, error) {
	return &tokenbrokerv1.AcceptConsentResponse{Consent: b.consent("example/drive", tokenbrokerv1.ConsentState_CONSENT_STATE_DONE),
		Credential: &tokenbrokerv1.Credential{Credential: "example/drive"}}, b.note(r)
}

func (b *standIn) CancelConsent(_ context.Context, r *tokenbrokerv1.CancelConsentRequest) (*tokenbrokerv1.CancelConsentResponse, error) {
	return &tokenbrokerv1.CancelConsentResponse{Consent: b.consent("example/drive", tokenbrokerv1.ConsentState_CONSENT_STATE_CANCELLED)}, b.note(r)
}

func (b *standIn) provider() *tokenbrokerv1.Provider {
	return &tokenbrokerv1.Provider{Provider: "acme", Title: "Acme", Configured: true, Profile: "generic", GrantTypes: []string{"authorization_code", "device_code"},
		AuthMethods: []string{"client_secret_basic"}, TokenEndpoint: "https://auth.acme.example/token", AuthorizationEndpoint: "https://auth.acme.example/authorize", LoopbackRedirect: b.back,
		Notes: "Register an app at **Settings**.\n\n* tick `files.read`\x1b[31m\n", Sources: []string{"https://docs.acme.example/oauth"},
		Scopes: []*tokenbrokerv1.ScopeMeaning{{Scope: "files.read", Meaning: "read files"}}, Warnings: []string{"test tokens end after 7 days"}}
}

func (b *standIn) ListProviders(_ context.Context, r *tokenbrokerv1.ListProvidersRequest) (*tokenbrokerv1.ListProvidersResponse, error) {
	return &tokenbrokerv1.ListProvidersResponse{Providers: []*tokenbrokerv1.Provider{b.provider(), {Provider: "google", Title: "Google"}}}, b.note(r)
}

func (b *standIn) GetProvider(_ context.Context, r *tokenbrokerv1.GetProviderRequest) (*tokenbrokerv1.GetProviderResponse, error) {
	return &tokenbrokerv1.GetProviderResponse{Provider: b.provider()}, b.note(r)
}

// browser is a person at a browser: the provider sends it to the redirect URI with a query at once. It keeps where it ended up and what the
// last page said.
type browser struct {
	standIn *standIn
	query   string

	wg    sync.WaitGroup
	where string
	page  string
	err   error
}

func (b *browser) open(string) error {
	b.wg.Go(func() {
		b.standIn.mu.Lock()
		var back string
		for _, m := range b.standIn.asked {
			if m, ok := m.(*tokenbrokerv1.BeginConsentRequest); ok {
				back = m.GetRedirectUri()
			}
		}
		b.standIn.mu.Unlock()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(back + "?" + b.query)
		if err != nil {
			b.err = err
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		b.where, b.page, b.err = resp.Request.URL.String(), string(text), err
	})
	return nil
}
