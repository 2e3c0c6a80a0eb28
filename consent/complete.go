package consent

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Complete redeems what the provider sent to the redirect URI of a consent by loopback or paste, for the identity that began it.
func (s *Service) Complete(ctx context.Context, id, identity string, callbackURL tokenbroker.Secret) (tokenbroker.Consent, error) {
	c, err := s.Consent(ctx, id)
	if err != nil {
		return c, err
	}
	if identity == "" || c.BegunBy != identity {
		return tokenbroker.Consent{}, tokenbroker.ErrConsentNotFound
	}
	if c.Flow != tokenbroker.FlowLoopback && c.Flow != tokenbroker.FlowPaste {
		return c, &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: "a consent by " + string(c.Flow) + " is completed otherwise"}
	}
	back, err := parseURL(callbackURL.Reveal(), c.RedirectURI)
	if err != nil {
		return c, err
	}
	return s.receive(ctx, c, back)
}

// receive takes what came to the redirect URI.
func (s *Service) receive(ctx context.Context, c tokenbroker.Consent, back callback) (tokenbroker.Consent, error) {
	if c.State == tokenbroker.ConsentPending && c.Step == tokenbroker.StepNone && time.Now().After(c.StateExpiry) {
		c.State = tokenbroker.ConsentExpired // as it will be once it is swept
	}
	switch {
	case c.State != tokenbroker.ConsentPending || c.Step != tokenbroker.StepNone:
		return c, ended(c)
	case back.id != c.ID || !proves(back.secret, c.State256):
		return c, tokenbroker.Invalid("callbackUrl", errors.New("its state is not the one of this consent"))
	}
	p, err := s.partyOf(ctx, c)
	if err != nil {
		return c, err
	}
	err = s.cfg.Codes.CheckCallback(c.Provider, back.query)
	answer, refused := errors.AsType[*tokenbroker.Failure](err)
	if err != nil && (!refused || !answer.Sent) {
		return c, tokenbroker.Invalid("callbackUrl", errors.New("does not come from the provider: its iss is missing or another one (RFC 9207)"))
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if refused {
		return s.refused(ctx, c, answer)
	}
	return s.redeem(ctx, c, p, back.code)
}

// redeem sends a code. That it is used is durable before.
func (s *Service) redeem(ctx context.Context, c tokenbroker.Consent, p party, code tokenbroker.Secret) (tokenbroker.Consent, error) {
	verifier, nonce := c.Verifier, c.Nonce
	c.Step, c.StepTime = tokenbroker.StepRedeeming, time.Now()
	c.State256, c.Verifier = nil, tokenbroker.Secret{} // once this is written, nothing can redeem it again
	c, err := s.put(ctx, c)
	if err != nil {
		return c, err
	}
	secret := p.secret()
	reply, err := s.cfg.Codes.Redeem(ctx, tokenbroker.CodeRequest{Credential: p.credential, Client: p.client, Secret: secret, Scopes: c.Scopes,
		Code: code, Verifier: verifier, RedirectURI: c.RedirectURI, Nonce: nonce})
	return s.settle(ctx, c, p, outcome{reply, secret.ID, err})
}

// refused ends a consent that the person or the provider said no to.
func (s *Service) refused(ctx context.Context, c tokenbroker.Consent, f *tokenbroker.Failure) (tokenbroker.Consent, error) {
	state := tokenbroker.ConsentFailed
	if f.Class == tokenbroker.ClassDeadGrant {
		state = tokenbroker.ConsentDenied
	}
	c, err := s.finish(ctx, c, state, cleanCode(f.Code))
	if err != nil {
		return c, err
	}
	return c, ended(c)
}

// outcome is what a token request for a consent brought.
type outcome struct {
	reply    tokenbroker.ExchangeReply
	secretID string
	err      error
}

// settle makes of an outcome what is right: a grant for the credential, one that waits for an operator, or one to be ended.
func (s *Service) settle(ctx context.Context, c tokenbroker.Consent, p party, o outcome) (tokenbroker.Consent, error) {
	grant := adoption(c, o)
	if grant == nil {
		c, err := s.finish(ctx, c, tokenbroker.ConsentFailed, failureCode(o.err))
		if err != nil {
			return c, err
		}
		return c, ended(c)
	}
	c.Grant, c.Account, c.Granted = grant, grant.Account, grant.Granted
	if code := failureCode(o.err); forged(o.err) {
		c, err := s.finish(ctx, c, tokenbroker.ConsentFailed, code)
		if err != nil {
			return c, err
		}
		c = s.revoke(ctx, c)
		return c, ended(c)
	}
	c.Missing = c.Lacks()
	c.StepTime = time.Now()
	if c.Flow != tokenbroker.FlowLink {
		c.Step = tokenbroker.StepAdopting
	} else if code := wrongAccount(c, p.grant.Account); code == "" {
		c.Step, c.State, c.Expiry = tokenbroker.StepNone, tokenbroker.ConsentAwaiting, c.StepTime.Add(acceptLife)
	} else {
		c, err := s.mismatch(ctx, c, code)
		return s.revoke(ctx, c), err
	}
	next, err := s.keep(ctx, c)
	switch {
	case errors.Is(err, tokenbroker.ErrConsentEnded): // cancelled meanwhile
		return next, errors.Join(err, s.discard(ctx, next, grant))
	case err != nil || next.Step != tokenbroker.StepAdopting:
		return next, err
	}
	return s.adopt(ctx, next, false)
}

// keep writes a consent with its grant, of which there is no other copy: where the store can't be written it tries again until ctx ends.
func (s *Service) keep(ctx context.Context, c tokenbroker.Consent) (tokenbroker.Consent, error) {
	for wait := keepAgain; ; wait = min(2*wait, keepMost) {
		next, err := s.put(ctx, c)
		if !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
			return next, err
		}
		s.log.Error("what was consented to is in memory only: the store can't be written", "consent", c.ID, "credential", c.Credential, "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return next, err
		}
	}
}

// keepAgain is the time between two tries of keep, which doubles up to keepMost.
const (
	keepAgain = 50 * time.Millisecond
	keepMost  = 5 * time.Second
)

// forged reports whether a token request brought an id_token that is not for this client and this consent: what came with it may be
// another person's.
func forged(err error) bool {
	f, ok := errors.AsType[*tokenbroker.Failure](err)
	return ok && strings.HasPrefix(f.Code, "id_token_")
}

// adoption is what a credential may take up of an outcome; nil if there is nothing.
func adoption(c tokenbroker.Consent, o outcome) *tokenbroker.Adoption {
	a := &tokenbroker.Adoption{Credential: c.Credential, UID: c.UID, RefreshToken: o.reply.RefreshToken, Holds: tokenbroker.HoldsRefreshToken,
		RefreshEnd: o.reply.RefreshEnd, Account: o.reply.Account, Granted: o.reply.Granted, SecretID: o.secretID}
	if o.err == nil {
		a.Token = o.reply.Token
	}
	if a.Token == nil && a.RefreshToken.IsZero() {
		return nil
	}
	return a
}

// failureCode is why a token request brought nothing.
func failureCode(err error) string {
	if f, ok := errors.AsType[*tokenbroker.Failure](err); ok {
		return cleanCode(f.Code)
	}
	if err == nil {
		return "no_token"
	}
	return "internal"
}

// The broker's own codes of consents that went wrong.
const (
	codeMismatch    = "account_mismatch"
	codeUnnamed     = "account_not_named"
	codeInterrupted = "interrupted"
	codeGone        = "credential_gone"
	codeNoRefresh   = "no_refresh_token"
	codeStale       = "grant_expired"
	codeExpired     = "expired_token" // RFC 8628 §3.5
)

// wrongAccount says why an account will not do; "" if it will. known is the one that the credential knows.
func wrongAccount(c tokenbroker.Consent, known string) string {
	if c.ReplaceAccount && c.ExpectedAccount != "" {
		known = ""
	}
	for _, want := range []string{c.ExpectedAccount, known} {
		switch {
		case want == "" || sameAccount(want, c.Account):
		case c.Account == "":
			return codeUnnamed
		default:
			return codeMismatch
		}
	}
	return ""
}

// sameAccount compares names of accounts: e-mail addresses without regard to the case of ASCII letters, others to the byte.
func sameAccount(a, b string) bool {
	return a == b || strings.Contains(a, "@") && lowerASCII(a) == lowerASCII(b)
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// mismatch ends a consent whose account will not do, and its grant.
func (s *Service) mismatch(ctx context.Context, c tokenbroker.Consent, code string) (tokenbroker.Consent, error) {
	c, err := s.finish(ctx, c, tokenbroker.ConsentFailed, code)
	if err != nil {
		return c, err
	}
	detail := "who consented is not the account that was expected, or that the credential knows; what was granted is revoked"
	if code == codeUnnamed {
		detail = "one is expected, and the provider does not say who consented, so it can't be compared; what was granted is revoked"
	}
	return c, &tokenbroker.Problem{Err: tokenbroker.ErrAccountMismatch, Detail: detail, Metadata: map[string]string{"code": code}}
}

// discard keeps a grant with a consent that is over already, to be ended at the provider.
func (s *Service) discard(ctx context.Context, c tokenbroker.Consent, grant *tokenbroker.Adoption) error {
	c.Grant, c.Step, c.StepTime = grant, tokenbroker.StepRevoking, time.Now()
	c, err := s.put(ctx, c)
	if err == nil {
		s.revoke(ctx, c)
	}
	return err
}
