package dev

import (
	"context"
	_ "embed"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/terminal"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

//go:embed templates/keys.txt
var keysText string

const (
	retryAfter    = 5 * time.Second // that a 429 asks for
	slowness      = 4 * time.Second
	failures      = 3                // requests in a row that "fail" spoils, so that there is something to see
	waitForFloor  = 3 * time.Second  // the longest that 50 callers wait until a refresh may be caused
	actionTimeout = 20 * time.Second // of what a key begins
)

// key does what a key is for.
func (s *session) key(ctx context.Context, k terminal.Key) {
	name, issuer := s.model.Chosen()
	switch {
	case k == terminal.Up:
		s.model.Move(-1)
	case k == terminal.Down:
		s.model.Move(1)
	case k >= '1' && k <= '9':
		s.model.Select(int(k - '0'))
	case k == 'k':
		s.killWorker()
	case k == 'd':
		s.drain()
	case name == "":
	default:
		s.fault(ctx, rune(k), name, issuer)
	}
}

// fault does something to one credential.
func (s *session) fault(ctx context.Context, k rune, name, issuer string) {
	switch k {
	case 'f':
		s.arm(name, issuer, sandbox.Fault{Status: http.StatusInternalServerError, Times: failures}, "you: next 3 refreshes fail")
	case 'l':
		s.arm(name, issuer, sandbox.Fault{Status: http.StatusTooManyRequests, RetryAfter: retryAfter}, "you: next refresh gets a 429")
	case 's':
		s.arm(name, issuer, sandbox.Fault{Delay: slowness}, "you: next refresh takes 4 s")
	case 'r':
		s.act(ctx, name, func(ctx context.Context, b *broker.Broker) error { return s.revoke(ctx, b, name) })
	case 'c':
		s.act(ctx, name, func(ctx context.Context, b *broker.Broker) error { return s.consent(ctx, b, name) })
	case 'n':
		s.act(ctx, name, func(ctx context.Context, b *broker.Broker) error { return s.stampede(ctx, b, name, issuer) })
	}
}

// arm has token requests of a credential go wrong.
func (s *session) arm(name, issuer string, f sandbox.Fault, what string) {
	s.world.arm(name, issuer, f)
	s.note(name, "%s", what)
}

func (s *session) killWorker() {
	switch {
	case s.fleet == nil:
		s.note("", "there is no sample worker to kill: subscribe with one of your own, and kill that")
	case !s.fleet.killOne():
		s.note("", "all workers are dead already; they come back")
	}
}

func (s *session) drain() {
	if s.world.drain() {
		s.note("", "you: drain the broker: streams end, exchanges in flight finish")
		return
	}
	s.note("", "there is no broker to drain; it comes back")
}

// act does something with the engine that may take a while. Too much at a time is refused.
func (s *session) act(ctx context.Context, name string, do func(context.Context, *broker.Broker) error) {
	b := s.world.engine()
	if b == nil {
		s.remark(name, "the broker is away; it comes back")
		return
	}
	select {
	case s.actions <- struct{}{}:
	default:
		s.remark(name, "one thing after the other: some are still under way")
		return
	}
	s.start(func() {
		defer func() { <-s.actions }()
		ctx, cancel := context.WithTimeout(ctx, actionTimeout)
		defer cancel()
		if err := do(ctx, b); err != nil && ctx.Err() == nil {
			s.remark(name, explain(err))
		}
	})
}

// explain says in a few words why something could not be done.
func explain(err error) string {
	if st, ok := status.FromError(err); ok {
		return "could not: " + st.Message()
	}
	return "could not: " + err.Error()
}

// revoke has the provider withdraw the consent that the present token came of; a token of client_credentials goes alone.
func (s *session) revoke(ctx context.Context, b *broker.Broker, name string) error {
	st, err := b.Credential(ctx, name)
	if err != nil {
		return err
	}
	token := st.Snapshot.Token
	if token == nil {
		s.remark(name, "there is no live token to know the grant by")
		return nil
	}
	what := "revoked the grant, all its tokens"
	if st.Credential.Grant == tokenbroker.GrantClientCredentials {
		what = "revoked the access token"
	}
	s.note(name, "you: %s", what)
	s.world.sandbox.RevokeFamily(token.AccessToken.Reveal())
	return nil
}

// consent does what an operator does after a new consent: it imports a refresh token.
func (s *session) consent(ctx context.Context, b *broker.Broker, name string) error {
	st, err := b.Credential(ctx, name)
	if err != nil {
		return err
	}
	if st.Credential.Grant != tokenbroker.GrantRefreshToken {
		s.remark(name, "client_credentials needs no consent")
		return nil
	}
	oc, err := b.Client(ctx, st.Credential.Client)
	if err != nil {
		return err
	}
	r := s.world.roles[st.Credential.Provider]
	if !slices.Contains(r.clients, oc.ClientID) {
		s.remark(name, "the sandbox does not know its client id "+oc.ClientID)
		return nil
	}
	s.note(name, "you: consented anew")
	token := s.world.sandbox.SeedRefreshToken(r.issuer, oc.ClientID, st.Credential.Scopes...)
	_, err = b.Adopt(ctx, name, tokenbroker.Adoption{RefreshToken: tokenbroker.NewSecret(token)})
	return err
}

// stampede has many callers want a longer life than the present token has: they all wait for one exchange.
func (s *session) stampede(ctx context.Context, b *broker.Broker, name, issuer string) error {
	st, err := b.Credential(ctx, name)
	if err != nil {
		return err
	}
	least := time.Duration(0)
	if t := st.Snapshot.Token; t != nil {
		wait := time.Until(t.Obtained.Add(min(s.world.roles[issuer].floor, t.Life()/2))) + frame
		if wait > waitForFloor {
			s.remark(name, "its token is too fresh for anybody to cause a refresh, for "+wait.Round(time.Second).String())
			return nil
		}
		if wait > 0 {
			sleep(ctx, wait)
		}
		least = time.Until(t.Expiry) + time.Second
	}
	s.world.arm(name, issuer, sandbox.Fault{Delay: gathering})
	s.remark(name, "you: 50 callers at once")
	return s.world.scene.herd(ctx, s.world, name, least)
}
