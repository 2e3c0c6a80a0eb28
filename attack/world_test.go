package attack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// world is a broker that serves, with an operator and the credentials example/one and example/pulse.
type world struct {
	*site
	operator *grpc.ClientConn
}

func newWorld(t testing.TB, p plan) *world {
	t.Helper()
	w := &world{site: newSite(t, p)}
	w.start()
	w.operator = w.conn(w.as("operator/admin"))
	ctx := brief(t)
	_, err := tokenbrokerv1.NewOAuthClientServiceClient(w.operator).CreateOAuthClient(ctx, &tokenbrokerv1.CreateOAuthClientRequest{
		OauthClient: "steady", ClientSecret: secret, Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "steady", ClientId: "job",
			AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}})
	must(t, err)
	w.add("example/one")
	w.add("example/pulse")
	return w
}

// brief is a context for what must not take long, and may on a busy machine.
func brief(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (w *world) credentials() tokenbrokerv1.CredentialServiceClient {
	return tokenbrokerv1.NewCredentialServiceClient(w.operator)
}

// add adds a credential and waits for its first token.
func (w *world) add(name string, scopes ...string) {
	w.t.Helper()
	if len(scopes) == 0 {
		scopes = []string{"reports.read"}
	}
	_, err := w.credentials().CreateCredential(brief(w.t), &tokenbrokerv1.CreateCredentialRequest{Credential: name,
		Spec: &tokenbrokerv1.CredentialSpec{Provider: "steady", OauthClient: "steady", Scopes: scopes,
			GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS}})
	must(w.t, err)
	_, err = get(brief(w.t), w.operator, name)
	must(w.t, err)
}

// toggle disables and enables a credential, which every subscriber is told of twice.
func (w *world) toggle(name string) {
	w.t.Helper()
	_, err := w.credentials().DisableCredential(brief(w.t), &tokenbrokerv1.DisableCredentialRequest{Credential: name})
	must(w.t, err)
	_, err = w.credentials().EnableCredential(brief(w.t), &tokenbrokerv1.EnableCredentialRequest{Credential: name})
	must(w.t, err)
}

func get(ctx context.Context, conn *grpc.ClientConn, name string) (*tokenbrokerv1.Token, error) {
	r, err := tokenbrokerv1.NewTokenServiceClient(conn).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: name}, grpc.WaitForReady(true))
	return r.GetToken(), err
}

// stream is a subscription.
type stream = grpc.ServerStreamingClient[tokenbrokerv1.SubscribeResponse]

func subscribe(ctx context.Context, conn *grpc.ClientConn, names ...string) (stream, error) {
	return tokenbrokerv1.NewTokenServiceClient(conn).Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{Selectors: selectors(names...)}, grpc.WaitForReady(true))
}

func selectors(names ...string) (list []*tokenbrokerv1.Selector) {
	for _, n := range names {
		list = append(list, &tokenbrokerv1.Selector{Credential: n})
	}
	return list
}

// snapshot reads a stream to the end of its snapshot.
func snapshot(s stream) (map[string]*tokenbrokerv1.Update, error) {
	got := map[string]*tokenbrokerv1.Update{}
	for {
		m, err := s.Recv()
		if err != nil || m.GetSnapshotEnd() != nil {
			return got, err
		}
		if u := m.GetUpdate(); u != nil {
			got[u.GetSelector().GetCredential()] = u
		}
	}
}

// open subscribes and reads the snapshot.
func open(t testing.TB, conn *grpc.ClientConn, names ...string) stream {
	t.Helper()
	s, err := subscribe(t.Context(), conn, names...)
	must(t, err)
	_, err = snapshot(s)
	must(t, err)
	return s
}

// reason is the reason of an error's details.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// record is as much of an audit record as the tests look at.
type record struct {
	Kind       string `json:"kind"`
	Identity   string `json:"identity"`
	Action     string `json:"action"`
	Credential string `json:"credential"`
	Decision   string `json:"decision"`
	Code       string `json:"code"`
}

// records are those of the audit log that are of an identity.
func (s *site) records(path string) (list []record) {
	s.t.Helper()
	for line := range strings.Lines(s.read("audit.jsonl")) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			s.t.Fatalf("audit line %q: %v", line, err)
		}
		if r.Identity == domain+path {
			list = append(list, r)
		}
	}
	return list
}

func names(prefix string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%s%d", prefix, i))
	}
	return list
}

// within is a context that ends after d.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// exchanges is how many token requests the provider got.
func (s *site) exchanges() int { return s.up.Count(sandbox.Filter{Endpoint: sandbox.EndpointToken}) }
