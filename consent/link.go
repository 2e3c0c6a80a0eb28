package consent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Why a browser gets no further. Each is a page of its own.
var (
	ErrNoLink       = errors.New("no such link")
	ErrLinkExpired  = errors.New("the link is expired")
	ErrLinkUsed     = errors.New("the link is used")
	ErrOtherBrowser = errors.New("another browser began this")
	ErrBadCallback  = errors.New("that does not come from the provider")
)

// Invitation is what the page of a link says.
type Invitation struct {
	Consent  tokenbroker.Consent
	Provider string  // its title
	App      string  // name of the OAuth client
	Origin   string  // of the provider's authorization endpoint
	Account  string  // that is expected; "" = any
	Scopes   []Scope // that are asked for
}

// Scope is a scope and what it means.
type Scope struct {
	Name    string
	Meaning string // "" = the profile does not say
}

// Departure is where a browser goes on to.
type Departure struct {
	ConsentID string
	URL       string             // of the provider
	Browser   tokenbroker.Secret // for the browser to keep, and to show when it comes back
}

// Invitation reads a link, named by what follows LinkPath. It changes nothing. browser gives what the browser keeps of a consent, zero if
// nothing. Errors: ErrNoLink, ErrLinkExpired, ErrLinkUsed.
func (s *Service) Invitation(ctx context.Context, link string, browser func(id string) tokenbroker.Secret) (Invitation, error) {
	c, err := s.invited(ctx, link, browser)
	if err != nil {
		return Invitation{}, err
	}
	p, err := s.partyOf(ctx, c)
	if err != nil {
		return Invitation{}, err
	}
	trial := c
	target, err := s.depart(&trial, p)
	if err != nil {
		return Invitation{}, err
	}
	i := Invitation{Consent: c, Provider: p.title(), App: p.client.Name, Origin: origin(target), Account: c.ExpectedAccount}
	if i.Account == "" {
		i.Account = p.grant.Account
	}
	for _, name := range slices.Concat(c.Scopes, extra(p, c.Scopes)) {
		i.Scopes = append(i.Scopes, Scope{Name: name, Meaning: meaning(p, name)})
	}
	return i, nil
}

// extra are the scopes that the profile asks for besides.
func extra(p party, asked []string) []string {
	return slices.DeleteFunc(slices.Clone(p.profile.ConsentScopes), func(s string) bool { return slices.Contains(asked, s) })
}

// meaning is what the profile says of a scope, or else OpenID Connect (§5.4, §11).
func meaning(p party, scope string) string {
	for _, s := range p.profile.Scopes {
		if s.Name == scope {
			return s.Meaning
		}
	}
	return map[string]string{
		"openid":         "Know which account it is",
		"email":          "See your e-mail address",
		"profile":        "See your name and the like",
		"offline_access": "Keep the access while you are away",
	}[scope]
}

// invited finds the consent of a link that can be used by this browser.
func (s *Service) invited(ctx context.Context, link string, browser func(id string) tokenbroker.Secret) (tokenbroker.Consent, error) {
	id, secret := split(link)
	c, err := s.cfg.Records.Consent(ctx, id)
	switch {
	case errors.Is(err, tokenbroker.ErrConsentNotFound) || errors.Is(err, tokenbroker.ErrTampered):
		return c, ErrNoLink
	case err != nil:
		return c, err
	case !proves(secret, c.Link256):
		return c, ErrNoLink
	case c.State == tokenbroker.ConsentExpired || c.State == tokenbroker.ConsentPending && time.Since(c.Created) > linkLife:
		return c, ErrLinkExpired
	case c.State != tokenbroker.ConsentPending || c.Step != tokenbroker.StepNone:
		return c, ErrLinkUsed
	case c.Browser256 != nil && !proves(browser(c.ID).Reveal(), c.Browser256):
		return c, ErrLinkUsed
	}
	return c, nil
}

// Depart binds a link to the browser that pressed its button, and sends it to the provider. The same browser may press it again while the
// link is good; what it got before is over then.
func (s *Service) Depart(ctx context.Context, link string, browser func(id string) tokenbroker.Secret) (Departure, error) {
	c, err := s.invited(ctx, link, browser)
	if err != nil {
		return Departure{}, err
	}
	p, err := s.partyOf(ctx, c)
	if err != nil {
		return Departure{}, err
	}
	keeps := browser(c.ID)
	if c.Browser256 == nil {
		keeps = tokenbroker.NewSecret(random())
		c.Browser256 = digest(keeps.Reveal())
	}
	target, err := s.depart(&c, p)
	if err != nil {
		return Departure{}, err
	}
	if c.StateExpiry.After(c.Expiry) {
		c.Expiry = c.StateExpiry // who pressed the button in time has time for the rest
	}
	if err := s.audit(ctx, "consent.opened", c); err != nil {
		return Departure{}, err
	}
	if _, err := s.put(ctx, c); err != nil {
		if errors.Is(err, tokenbroker.ErrConsentEnded) {
			err = ErrLinkUsed // another browser was faster
		}
		return Departure{}, err
	}
	return Departure{ConsentID: c.ID, URL: target, Browser: keeps}, nil
}

// Return takes the query with which a provider sent a browser back. Errors: ErrBadCallback, ErrOtherBrowser, ErrLinkExpired, ErrLinkUsed;
// where there is none, the consent says how it went.
func (s *Service) Return(ctx context.Context, query string, browser func(id string) tokenbroker.Secret) (tokenbroker.Consent, error) {
	back, err := parseQuery(query)
	if err != nil {
		return tokenbroker.Consent{}, ErrBadCallback
	}
	c, err := s.cfg.Records.Consent(ctx, back.id)
	switch {
	case errors.Is(err, tokenbroker.ErrConsentNotFound) || errors.Is(err, tokenbroker.ErrTampered):
		return c, ErrBadCallback
	case err != nil:
		return c, err
	case c.Flow != tokenbroker.FlowLink || c.Browser256 == nil:
		return c, ErrBadCallback
	case !proves(browser(c.ID).Reveal(), c.Browser256):
		return c, ErrOtherBrowser
	case c.State != tokenbroker.ConsentPending || c.Step != tokenbroker.StepNone:
		return c, ErrLinkUsed
	case !proves(back.secret, c.State256):
		return c, ErrBadCallback
	case time.Now().After(c.StateExpiry):
		return c, ErrLinkExpired
	}
	if err := s.audit(ctx, "consent.returned", c); err != nil {
		return c, err
	}
	return s.returned(ctx, c, back)
}

// returned receives what came back. How a consent ended is no error to a browser: it has a page for that.
func (s *Service) returned(ctx context.Context, c tokenbroker.Consent, back callback) (tokenbroker.Consent, error) {
	next, err := s.receive(ctx, c, back)
	switch {
	case errors.Is(err, tokenbroker.ErrInvalidArgument):
		return c, ErrBadCallback
	case errors.Is(err, tokenbroker.ErrConsentEnded) && next.Step == tokenbroker.StepRedeeming:
		return next, ErrLinkUsed // the same callback is being redeemed already
	case errors.Is(err, tokenbroker.ErrConsentEnded) || errors.Is(err, tokenbroker.ErrAccountMismatch):
		return next, nil
	}
	return next, err
}

// Outcome says how a consent by link stands, to the browser that went through it. It changes nothing. Error: ErrNoLink.
func (s *Service) Outcome(ctx context.Context, id string, browser tokenbroker.Secret) (tokenbroker.Consent, error) {
	c, err := s.Consent(ctx, id)
	switch {
	case errors.Is(err, tokenbroker.ErrConsentNotFound):
		return tokenbroker.Consent{}, ErrNoLink
	case err == nil && !proves(browser.Reveal(), c.Browser256):
		return tokenbroker.Consent{}, ErrNoLink
	}
	return c, err
}
