package consent_test

import (
	"context"
	"sync"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/consent"
	"github.com/tokenbroker/tokenbroker/provider"
)

// forged is a provider whose answer came with an id_token of another consent: grant.Client.Redeem then returns the refresh token with the
// failure, to be revoked.
type forged struct{ *office }

func (f forged) Redeem(ctx context.Context, r tokenbroker.CodeRequest) (tokenbroker.ExchangeReply, error) {
	reply, err := f.office.Redeem(ctx, r)
	if err != nil {
		return reply, err
	}
	return tokenbroker.ExchangeReply{RefreshToken: reply.RefreshToken},
		&tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "id_token_wrong_nonce", HTTPStatus: 200, Sent: true}
}

func TestAttackAnIDTokenOfAnotherConsentGivesNoGrant(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.halt()
		w.config = func(c *consent.Config) { c.Codes = forged{w.office} }
		w.start()
		start := w.beginLoopback()
		c, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
		wantErr(t, err, tokenbroker.ErrConsentEnded)
		if c.State != tokenbroker.ConsentFailed || c.Code != "id_token_wrong_nonce" {
			t.Errorf("got %s %q, want FAILED id_token_wrong_nonce", c.State, c.Code)
		}
		if g := w.grantOf("acme/code"); !g.RefreshToken.IsZero() {
			t.Error("the credential lives on a grant whose id_token is of another consent")
		}
		if got := w.office.ended(); got != "rt-1" {
			t.Errorf("got %q revoked, want rt-1", got)
		}
	})
}

func TestAttackAnotherAccountWithoutARefreshTokenDoesNotLiveOnTheFormerOnes(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		first := w.beginLoopback()
		if _, err := w.complete(first.Consent.ID, w.office.visit(t, first.AuthorizationURL)); err != nil {
			t.Fatal(err)
		}
		w.office.account, w.office.noRT = "bob@acme.example", true
		start := w.begin(tokenbroker.BeginConsent{Credential: "acme/code", Identity: operator, Flow: tokenbroker.FlowLoopback, RedirectURI: loopback,
			ExpectedAccount: "bob@acme.example", ReplaceAccount: true})
		if _, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL)); err != nil {
			t.Fatal(err)
		}
		if g := w.grantOf("acme/code"); g.Account == "bob@acme.example" && g.RefreshToken.Reveal() == "rt-1" {
			t.Error("the credential is said to be bob's, and lives on ann's refresh token")
		}
	})
}

func TestAttackACodeGoesToTheProviderThatItCameFrom(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		start := w.beginLoopback()
		callback := w.office.visit(t, start.AuthorizationURL)
		if err := w.store.DeleteCredential(t.Context(), "acme/code", 0); err != nil {
			t.Fatal(err)
		}
		other := tokenbroker.OAuthClient{Name: "other", Provider: "other", ClientID: "app", Auth: tokenbroker.AuthNone}
		if _, err := w.store.PutClient(t.Context(), other, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.CreateCredential(t.Context(), tokenbroker.Credential{Name: "acme/code", Provider: "other", Client: "other",
			Grant: tokenbroker.GrantAuthorizationCode}, tokenbroker.Grant{State: tokenbroker.StatePending}); err != nil {
			t.Fatal(err)
		}
		w.halt()
		acme := w.profile
		w.config = func(c *consent.Config) { c.Profiles = func(string) (provider.Profile, bool) { return acme, true } }
		w.start()
		_, _ = w.complete(start.Consent.ID, callback)
		for _, r := range w.office.redeemed {
			t.Errorf("the code and verifier of a consent at acme went to the token endpoint of %s", r.Credential.Provider)
		}
	})
}

// full is a store on a disk that is full for a while once a code was redeemed.
type full struct {
	consent.Records
	office *office
	mu     sync.Mutex
	left   int
}

func (f *full) PutConsent(ctx context.Context, c tokenbroker.Consent, version uint64) (tokenbroker.Consent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.office.times() > 0 && f.left > 0 {
		f.left--
		return c, tokenbroker.ErrStoreUnavailable
	}
	return f.Records.PutConsent(ctx, c, version)
}

func TestAttackAGrantIsNotLostToADiskThatIsFullForAMoment(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.halt()
		w.config = func(c *consent.Config) { c.Records = &full{Records: w.store, office: w.office, left: 3} }
		w.start()
		start := w.beginLoopback()
		c, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
		if err != nil || c.State != tokenbroker.ConsentDone || w.grantOf("acme/code").RefreshToken.Reveal() != "rt-1" {
			t.Errorf("got %s, %v; want the one copy of the refresh token kept", c.State, err)
		}
	})
}

// forge is a provider that ends access tokens alone, as GitHub does.
type forge struct{ *office }

func (f forge) Revoke(ctx context.Context, r tokenbroker.RevokeRequest) error {
	if r.Kind != tokenbroker.AccessTokenKind {
		return &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "revocation_not_supported"}
	}
	return f.office.Revoke(ctx, r)
}

func TestAttackWhatNobodyTookIsEndedWhereOnlyAccessTokensCanBe(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.halt()
		w.config = func(c *consent.Config) { c.Codes = forge{w.office} }
		w.start()
		start := w.begin(tokenbroker.BeginConsent{Credential: "acme/code", Identity: operator, Flow: tokenbroker.FlowLoopback, RedirectURI: loopback,
			ExpectedAccount: "bob@acme.example"})
		_, err := w.complete(start.Consent.ID, w.office.visit(t, start.AuthorizationURL))
		wantErr(t, err, tokenbroker.ErrAccountMismatch)
		if got := w.office.ended(); got != "at-1" {
			t.Errorf("got %q revoked, want at-1", got)
		}
	})
}
