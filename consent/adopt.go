package consent

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// adopt gives a consent's grant to its credential. The consent says already that it does, so that a restart goes on here. One at a time: an
// account is compared with the one that the credential has got by then.
func (s *Service) adopt(ctx context.Context, c tokenbroker.Consent, resumed bool) (tokenbroker.Consent, error) {
	leave, err := hold(ctx, s.finishing)
	if err != nil {
		return c, err
	}
	c, err = s.adoptLocked(ctx, c, resumed)
	leave()
	if err != nil {
		return s.revoke(ctx, c), err
	}
	return s.try(ctx, c), nil
}

// adoptLocked is adopt up to the trial.
func (s *Service) adoptLocked(ctx context.Context, c tokenbroker.Consent, resumed bool) (tokenbroker.Consent, error) {
	if now, err := s.cfg.Records.Consent(ctx, c.ID); err != nil || now.Version != c.Version {
		return now, errors.Join(err, ended(now))
	}
	p, err := s.party(ctx, c.Credential)
	if errors.Is(err, tokenbroker.ErrNotFound) || err == nil && p.credential.UID != c.UID {
		return s.gone(ctx, c)
	}
	if err != nil {
		return c, err
	}
	adopted := resumed && !p.grant.Consented.Before(c.StepTime) // by us before we were cut short, or by somebody else since
	if code := wrongAccount(c, p.grant.Account); code != "" && !adopted {
		return s.mismatch(ctx, c, code)
	}
	if !adopted {
		err = s.cfg.Engine.Adopt(ctx, adoptable(c, p))
	}
	switch {
	case errors.Is(err, tokenbroker.ErrNotFound):
		return s.gone(ctx, c)
	case err != nil:
		return c, err // the step stands, so it is tried again
	}
	code := ""
	if c.Grant.RefreshToken.IsZero() {
		code = codeNoRefresh
	}
	c.Grant = nil
	return s.finish(ctx, c, tokenbroker.ConsentDone, code)
}

// adoptable is what a credential takes up of a consent. An access token of other scopes is none of its own variant, so it is left out
// where a refresh token brings the right one.
func adoptable(c tokenbroker.Consent, p party) tokenbroker.Adoption {
	a := *c.Grant
	a.Credential, a.UID = c.Credential, c.UID
	own := tokenbroker.NewVariant(p.credential.Scopes, "", "").Key() == tokenbroker.NewVariant(c.Scopes, "", "").Key()
	if !own && !a.RefreshToken.IsZero() {
		a.Token = nil
	}
	return a
}

// gone ends a consent whose credential was deleted, and its grant.
func (s *Service) gone(ctx context.Context, c tokenbroker.Consent) (tokenbroker.Consent, error) {
	c, err := s.finish(ctx, c, tokenbroker.ConsentFailed, codeGone)
	if err != nil {
		return c, err
	}
	return c, ended(c)
}

// try refreshes a credential once, to see that its new grant works, where that harms nobody.
func (s *Service) try(ctx context.Context, c tokenbroker.Consent) tokenbroker.Consent {
	profile, ok := s.cfg.Profiles(c.Provider)
	if !ok || profile.Traits().KillsOld || c.Code == codeNoRefresh {
		return c
	}
	if c.Trial = s.cfg.Engine.Trial(ctx, c.Credential); c.Trial == "" {
		return c
	}
	next, err := s.put(ctx, c)
	if err != nil {
		s.log.Warn("the outcome of a trial refresh is not kept", "consent", c.ID, "error", err)
		return c
	}
	return next
}

// revoke ends at the provider what a consent brought and nobody took. What fails is tried again by Run.
func (s *Service) revoke(ctx context.Context, c tokenbroker.Consent) tokenbroker.Consent {
	if c.Step != tokenbroker.StepRevoking || c.Grant == nil {
		return c
	}
	err := s.revokeGrant(ctx, c)
	f, ok := errors.AsType[*tokenbroker.Failure](err)
	if impossible := ok && !f.Sent && f.Class == tokenbroker.ClassConfiguration; err != nil && !impossible {
		s.log.Warn("a grant that nobody took is not revoked yet", "consent", c.ID, "credential", c.Credential, "code", failureCode(err))
		return c
	}
	c.Grant, c.Step, c.StepTime = nil, tokenbroker.StepNone, time.Time{}
	next, err := s.put(ctx, c)
	if err != nil {
		return c
	}
	return next
}

// revokeGrant asks the provider to end the refresh token, or the access token where there is none.
func (s *Service) revokeGrant(ctx context.Context, c tokenbroker.Consent) error {
	p, err := s.party(ctx, c.Credential)
	if err != nil || p.credential.UID != c.UID { // it is gone, and its OAuth client may be there
		p.credential = tokenbroker.Credential{Name: c.Credential, UID: c.UID, Provider: c.Provider, Client: c.Client, Grant: tokenbroker.GrantAuthorizationCode}
		if p.client, err = s.cfg.Configuration.Client(ctx, c.Client); err != nil {
			return err
		}
	}
	p.grant.SecretID = c.Grant.SecretID
	r := tokenbroker.RevokeRequest{Credential: p.credential, Client: p.client, Secret: p.secret(), Token: c.Grant.RefreshToken, Kind: tokenbroker.RefreshTokenKind}
	access := ofAccess(r, c.Grant.Token)
	if r.Token.IsZero() {
		return s.cfg.Codes.Revoke(ctx, access)
	}
	err = s.cfg.Codes.Revoke(ctx, r)
	if f, ok := errors.AsType[*tokenbroker.Failure](err); ok && (f.Code == "unsupported_token_type" || f.Code == "revocation_not_supported") && !access.Token.IsZero() {
		return s.cfg.Codes.Revoke(ctx, access)
	}
	return err
}

// ofAccess is the request to revoke an access token in place of the other one.
func ofAccess(r tokenbroker.RevokeRequest, t *tokenbroker.Token) tokenbroker.RevokeRequest {
	r.Token, r.Kind = tokenbroker.Secret{}, tokenbroker.AccessTokenKind
	if t != nil {
		r.Token = t.AccessToken
	}
	return r
}
