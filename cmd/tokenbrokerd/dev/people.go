package dev

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// people is the provider at which a person consents in a browser, and the OAuth client that asks for it. Its pages are on a loopback port;
// its tokens are had without a socket, like those of the other providers.
const (
	people     = "people"
	peopleLife = 30 * time.Second // of access tokens: long enough to look at one
	mine       = "example/mine"   // the credential that the texts have a newcomer connect
)

// front is where a browser finds the sandbox's pages.
type front struct {
	listener net.Listener
	server   *http.Server
	done     chan struct{} // closed when the server has ended; nil = it does not run
}

// openFront listens on a loopback port. Close it.
func openFront() (*front, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the sandbox's pages: %w", err)
	}
	return &front{listener: l}, nil
}

// url is the address of the pages of "people".
func (f *front) url() string { return "http://" + f.listener.Addr().String() + "/" + people }

// serve shows the sandbox's pages and the API, or the API alone, until close.
func (f *front) serve(h http.Handler) {
	f.server = &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		_ = f.server.Serve(f.listener)
	}()
}

// close ends what serve began.
func (f *front) close() {
	if f.done != nil {
		_ = f.server.Close()
		<-f.done
	}
	_ = f.listener.Close()
}

// issuer is how the sandbox plays "people".
func (f *front) issuer() sandbox.Issuer {
	return sandbox.Issuer{Name: people, URL: f.url(), AccessLife: peopleLife, Rotation: sandbox.RotateStrict,
		Accounts: []sandbox.Account{sandbox.DefaultAccount(), {ID: "1002", Email: "other@sandbox.test", Name: "Other User"}},
		Clients:  []sandbox.Client{{ID: people, Secrets: []string{sandboxSecret}, RedirectURIs: []string{"http://127.0.0.1/callback"}}}}
}

// profile is what an operator would write of it.
func (f *front) profile(floor provider.Duration) provider.Profile {
	at := func(endpoint string) string { return "https://sandbox.example/" + people + "/" + endpoint }
	return provider.Profile{TokenEndpoint: at("token"), AuthorizationEndpoint: f.url() + "/authorize", DeviceAuthorizationEndpoint: at("device"),
		RevocationEndpoint: at("revoke"), IntrospectionEndpoint: at("introspect"), UserinfoEndpoint: at("userinfo"),
		ConsentScopes: []string{"openid"}, Floor: &floor, InsecureLoopback: true,
		Scopes: []provider.ScopeInfo{{Name: "files.read", Meaning: "See your files"}, {Name: "files.write", Meaning: "Change and delete your files"}}}
}

// addPeople adds the OAuth client that asks people for consent.
func addPeople(ctx context.Context, conn grpc.ClientConnInterface) error {
	_, err := tokenbrokerv1.NewOAuthClientServiceClient(conn).CreateOAuthClient(ctx, &tokenbrokerv1.CreateOAuthClientRequest{
		OauthClient: people, ClientSecret: sandboxSecret, Spec: &tokenbrokerv1.OAuthClientSpec{Provider: people, ClientId: people,
			AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}})
	if err != nil {
		return fmt.Errorf("create the OAuth client %s: %w", people, err)
	}
	return nil
}
