package server_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/server"
)

// What one provider does is felt by its own credentials alone. Time is fake here: a call that waits for nothing takes none at all.
func TestS34AStormAtOneProviderIsFeltThereAlone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  sandbox.Fault
		code   codes.Code
		reason string
		least  time.Duration // that callers are told to wait
	}{
		{"429", sandbox.Fault{Times: sandbox.Forever, Status: 429, RetryAfter: 10 * time.Minute}, codes.ResourceExhausted, "UPSTREAM_RATE_LIMITED", 9 * time.Minute},
		{"503", sandbox.Fault{Times: sandbox.Forever, Status: 503}, codes.Unavailable, "", time.Millisecond},
		{"no connection", sandbox.Fault{Times: sandbox.Forever, Refuse: true}, codes.Unavailable, "", time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := brokertest.Start(t, brokertest.Config{Limits: server.Limits{ConnectionAge: 100 * time.Hour, ConnectionIdle: 100 * time.Hour},
					CertLife: 100 * time.Hour, WatchEvery: time.Hour,
					Profile: func(_ string, p *provider.Profile) { floor := provider.Duration(time.Second); p.Floor = &floor }})
				defer b.Stop()
				const many = 30
				name := func(issuer string, i int) string { return fmt.Sprintf("example/%s-%d", issuer, i) }
				for _, issuer := range []string{"fast", "graceful"} {
					for i := range many {
						b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: name(issuer, i), Spec: &tokenbrokerv1.CredentialSpec{Provider: issuer,
							GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: []string{"files.read"}}})
					}
				}
				tokens := tokensOf(b.Worker())
				ask := func(credential string) (*tokenbrokerv1.Token, time.Duration, error) {
					began := time.Now()
					r, err := tokens.GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: credential})
					return r.GetToken(), time.Since(began), err
				}
				time.Sleep(5 * time.Hour) // nobody has asked: no token is left
				asked := func(issuer string) int { return b.Sandbox.Count(sandbox.Filter{Issuer: issuer}) }
				fast, graceful := asked("fast"), asked("graceful")
				b.Sandbox.Fail("fast", tt.fault)
				for i := range many {
					_, _, err := ask(name("fast", i))
					f := faultOf(t, err)
					if f.Code != tt.code || tt.reason != "" && f.Reason != tt.reason || f.Retry < tt.least {
						t.Errorf("credential %d of the provider in trouble: got %+v, want %v and to wait at least %v", i, f, tt.code, tt.least)
					}
					tok, took, err := ask(name("graceful", i))
					if err != nil || tok.GetAccessToken() == "" || took > 0 {
						t.Errorf("credential %d of the other provider: got %v after %v, want a token at once", i, err, took)
					}
				}
				if n := asked("fast") - fast; n > 10 || n == 0 {
					t.Errorf("the provider in trouble was asked %d times for %d credentials, want it let alone after a few", n, many)
				}
				if n := asked("graceful") - graceful; n != many {
					t.Errorf("the other provider was asked %d times, want once for each of %d credentials", n, many)
				}
				b.Sandbox.Clear("fast")
				time.Sleep(15 * time.Minute)
				if _, _, err := ask(name("fast", 0)); err != nil {
					t.Errorf("after the storm: got %v, want a token", err)
				}
			})
		})
	}
}
