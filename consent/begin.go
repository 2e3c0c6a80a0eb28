package consent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

var flows = []tokenbroker.ConsentFlow{tokenbroker.FlowLoopback, tokenbroker.FlowPaste, tokenbroker.FlowDevice, tokenbroker.FlowLink}

// Begin starts a consent. That the identity may is for the caller to know.
func (s *Service) Begin(ctx context.Context, b tokenbroker.BeginConsent) (tokenbroker.ConsentStart, error) {
	if !slices.Contains(flows, b.Flow) {
		return tokenbroker.ConsentStart{}, tokenbroker.Invalid("flow", errors.New("is required, e.g. CONSENT_FLOW_LOOPBACK"))
	}
	p, err := s.party(ctx, b.Credential)
	if err != nil {
		return tokenbroker.ConsentStart{}, err
	}
	if len(b.Scopes) == 0 {
		b.Scopes = p.credential.Scopes
	}
	if b.RedirectURI, err = s.redirect(b, p); err != nil {
		return tokenbroker.ConsentStart{}, err
	}
	if err := errors.Join(p.checkFlow(b.Flow), checkBegin(b, p)); err != nil {
		return tokenbroker.ConsentStart{}, err
	}
	if err := s.room(ctx, b.Identity); err != nil { // before the provider is asked; counted again when it is written
		return tokenbroker.ConsentStart{}, err
	}
	now := time.Now()
	start := tokenbroker.ConsentStart{Consent: tokenbroker.Consent{ID: newID(), Credential: p.credential.Name, UID: p.credential.UID,
		Provider: p.credential.Provider, Client: p.credential.Client, Flow: b.Flow, State: tokenbroker.ConsentPending, BegunBy: b.Identity,
		Scopes: b.Scopes, RedirectURI: b.RedirectURI, ExpectedAccount: b.ExpectedAccount, ReplaceAccount: b.ReplaceAccount, Created: now}}
	if err := s.prepare(ctx, &start, p); err != nil {
		return tokenbroker.ConsentStart{}, err
	}
	if start.Consent, err = s.add(ctx, start.Consent); err != nil {
		return tokenbroker.ConsentStart{}, err
	}
	if b.Flow == tokenbroker.FlowDevice {
		s.poll(start.Consent.ID)
	}
	return start, nil
}

// redirect is the redirect URI of a consent, the same in both legs.
func (s *Service) redirect(b tokenbroker.BeginConsent, p party) (string, error) {
	pattern := p.loopback()
	local := b.Flow == tokenbroker.FlowLoopback || b.Flow == tokenbroker.FlowPaste
	switch {
	case local && pattern == noLoopback:
		return "", &tokenbroker.Problem{Err: tokenbroker.ErrConsentNotOffered, Detail: "provider " + p.credential.Provider + " takes no loopback redirect: consent by link"}
	case b.Flow == tokenbroker.FlowLink && s.cfg.PublicURL == "":
		return "", &tokenbroker.Problem{Err: tokenbroker.ErrConsentNotOffered, Detail: "the broker has no consent listener: set consent.listen and consent.public_url"}
	case b.Flow == tokenbroker.FlowLink || b.Flow == tokenbroker.FlowDevice:
		if b.RedirectURI != "" {
			return "", tokenbroker.Invalid("redirectUri", errors.New("is not for this flow"))
		}
		if b.Flow == tokenbroker.FlowDevice {
			return "", nil
		}
		return s.LinkRedirect(), nil
	case b.Flow == tokenbroker.FlowPaste && b.RedirectURI == "":
		return strings.ReplaceAll(pattern, portMark, strconv.Itoa(ephemeral())), nil
	}
	return b.RedirectURI, checkRedirect(b.RedirectURI, pattern)
}

// ephemeral is a port that nobody listens on for long: what comes to a pasted redirect must not meet somebody who waits for it.
func ephemeral() int { return 49152 + rand.IntN(1<<16-49152) }

func checkBegin(b tokenbroker.BeginConsent, p party) error {
	errs := []error{
		tokenbroker.Invalid("scopes", tokenbroker.ValidateScopes(b.Scopes)),
		tokenbroker.Invalid("expectAccount", tokenbroker.ValidateSubject(b.ExpectedAccount)),
	}
	if own := p.credential.Scopes; len(own) > 0 {
		if i := slices.IndexFunc(b.Scopes, func(s string) bool { return !slices.Contains(own, s) }); i >= 0 {
			errs = append(errs, tokenbroker.Invalid("scopes", fmt.Errorf("%s is none of the credential's: add it there first, so that its tokens are known to have it", b.Scopes[i])))
		}
	}
	if b.ReplaceAccount && b.ExpectedAccount == "" {
		errs = append(errs, tokenbroker.Invalid("expectAccount", errors.New("is required with replaceAccount: name the account that takes the place")))
	}
	if b.ExpectedAccount != "" && len(p.profile.Account) == 0 {
		errs = append(errs, tokenbroker.Invalid("expectAccount", errors.New("can't be checked: the provider does not say whose account it is")))
	}
	if b.ExpectedAccount != "" && !b.ReplaceAccount && p.grant.Account != "" && !sameAccount(b.ExpectedAccount, p.grant.Account) {
		errs = append(errs, &tokenbroker.Problem{Err: tokenbroker.ErrAccountMismatch, Field: "expectAccount",
			Detail: "the credential is connected to another one than is expected now, and this one takes its place only if that is asked for"})
	}
	return errors.Join(errs...)
}

// prepare makes what the flow is completed with. For a device code it asks the provider.
func (s *Service) prepare(ctx context.Context, start *tokenbroker.ConsentStart, p party) (err error) {
	c := &start.Consent
	switch c.Flow {
	case tokenbroker.FlowLoopback, tokenbroker.FlowPaste:
		c.Expiry = c.Created.Add(stateLife)
		start.AuthorizationURL, err = s.depart(c, p)
	case tokenbroker.FlowLink:
		c.Expiry = c.Created.Add(linkLife)
		secret := random()
		c.Link256 = digest(secret)
		start.Link = tokenbroker.NewSecret(s.cfg.PublicURL + LinkPath + handle(c.ID, secret).Reveal())
		trial := *c
		_, err = s.depart(&trial, p) // whatever is wrong with it is told now
	case tokenbroker.FlowDevice:
		err = s.startDevice(ctx, start, p)
	}
	return err
}

// depart makes state, verifier and nonce anew, and the URL that a browser goes to with them.
func (s *Service) depart(c *tokenbroker.Consent, p party) (string, error) {
	secret := random()
	c.State256, c.StateExpiry = digest(secret), time.Now().Add(stateLife)
	c.Verifier, c.Nonce = tokenbroker.NewSecret(random()), random()
	return s.authorizationURL(*c, p, handle(c.ID, secret).Reveal())
}

func (s *Service) authorizationURL(c tokenbroker.Consent, p party, state string) (string, error) {
	target, err := s.cfg.Codes.AuthorizationURL(tokenbroker.AuthorizationRequest{Credential: p.credential, Client: p.client, Scopes: c.Scopes,
		RedirectURI: c.RedirectURI, State: state, Nonce: c.Nonce, Verifier: c.Verifier, LoginHint: c.ExpectedAccount})
	return target, upstream(err)
}

// add writes a new consent, if there is room for it.
func (s *Service) add(ctx context.Context, c tokenbroker.Consent) (tokenbroker.Consent, error) {
	leave, err := hold(ctx, s.beginning)
	if err != nil {
		return c, err
	}
	defer leave()
	if err := s.room(ctx, c.BegunBy); err != nil {
		return c, err
	}
	return s.cfg.Records.PutConsent(ctx, c, 0)
}

// room is nil if an identity may begin one more consent.
func (s *Service) room(ctx context.Context, identity string) error {
	mine, all := 0, 0
	now := time.Now()
	for c, err := range s.cfg.Records.Consents(ctx) {
		switch {
		case errors.Is(err, tokenbroker.ErrTampered):
			all++
		case err != nil:
			return err
		case review(c, now).State.Over():
		case c.BegunBy == identity:
			mine++
			fallthrough
		default:
			all++
		}
	}
	switch {
	case mine >= s.cfg.PerIdentity:
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "consents of this identity that are not over: cancel some"}
	case all >= s.cfg.InAll:
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "consents that are not over"}
	}
	return nil
}
