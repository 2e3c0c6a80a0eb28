package consent

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

// party is who is involved in a consent, as configured now.
type party struct {
	credential tokenbroker.Credential
	grant      tokenbroker.Grant
	client     tokenbroker.OAuthClient
	profile    provider.Profile
}

func (s *Service) party(ctx context.Context, credential string) (party, error) {
	var p party
	var err error
	if p.credential, p.grant, err = s.cfg.Configuration.Load(ctx, credential); err != nil {
		return p, err
	}
	if p.client, err = s.cfg.Configuration.Client(ctx, p.credential.Client); err != nil {
		return p, err
	}
	var ok bool
	if p.profile, ok = s.cfg.Profiles(p.credential.Provider); !ok {
		return p, &tokenbroker.Problem{Err: tokenbroker.ErrUnknownProvider, Detail: "the configuration file names it no more"}
	}
	return p, nil
}

// partyOf is the party of a consent. A credential that was made anew under the name is another one: what comes of the consent, such as
// a code, must not go to its provider.
func (s *Service) partyOf(ctx context.Context, c tokenbroker.Consent) (party, error) {
	p, err := s.party(ctx, c.Credential)
	if err == nil && p.credential.UID != c.UID {
		return party{}, tokenbroker.ErrNotFound
	}
	return p, err
}

// secret is what to authenticate with: the secret that worked last, else the newest. A code is sent once, so there is no second try. A key
// that a client has beside its secrets, for assertions, is none of them.
func (p party) secret() tokenbroker.ClientSecret {
	beside := func(s tokenbroker.ClientSecret) bool {
		return p.client.Auth.Kind() == tokenbroker.KindSecret && s.Kind != "" && s.Kind != tokenbroker.KindSecret
	}
	secrets := slices.DeleteFunc(slices.Clone(p.client.Secrets), beside)
	if i := slices.IndexFunc(secrets, func(s tokenbroker.ClientSecret) bool { return s.ID == p.grant.SecretID }); i >= 0 {
		return secrets[i]
	}
	if n := len(secrets); n > 0 {
		return secrets[n-1]
	}
	return tokenbroker.ClientSecret{}
}

// title is the provider's name for people.
func (p party) title() string {
	if p.profile.Title != "" {
		return p.profile.Title
	}
	return p.credential.Provider
}

// checkFlow says why a credential can't be consented to that way; nil if it can.
func (p party) checkFlow(flow tokenbroker.ConsentFlow) error {
	device := flow == tokenbroker.FlowDevice
	switch g := p.credential.Grant; {
	case g == tokenbroker.GrantRefreshToken:
	case !g.Consents():
		return &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: "nobody consents to the grant " + string(g)}
	case device != (g == tokenbroker.GrantDeviceCode):
		return &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: fmt.Sprintf("the grant %s goes another way than %s", g, flow)}
	}
	discovers := p.profile.Discover != nil && *p.profile.Discover
	switch {
	case discovers:
	case device && p.profile.DeviceAuthorizationEndpoint == "":
		return &tokenbroker.Problem{Err: tokenbroker.ErrConsentNotOffered, Detail: "provider " + p.credential.Provider + " has no device authorization endpoint"}
	case !device && p.profile.AuthorizationEndpoint == "":
		return &tokenbroker.Problem{Err: tokenbroker.ErrConsentNotOffered, Detail: "provider " + p.credential.Provider + " has no authorization endpoint"}
	}
	return nil
}

const (
	portMark        = "{port}"
	noLoopback      = "none"
	defaultLoopback = "http://127.0.0.1:" + portMark + "/callback"
)

// loopback is the redirect URI of consents on the caller's machine, with or without a mark for the port.
func (p party) loopback() string {
	if p.profile.LoopbackRedirect != "" {
		return p.profile.LoopbackRedirect
	}
	return defaultLoopback
}

// checkRedirect compares a redirect URI with the profile's: any port where the profile leaves it open, and not a byte else.
func checkRedirect(uri, pattern string) error {
	before, after, open := strings.Cut(pattern, portMark)
	rest, okBefore := strings.CutPrefix(uri, before)
	port, okAfter := strings.CutSuffix(rest, after)
	n, err := strconv.Atoi(port)
	fits := okBefore && okAfter && err == nil && n >= 1 && n <= 65535 && strconv.Itoa(n) == port
	if uri == pattern && !open || open && fits {
		return nil
	}
	return tokenbroker.Invalid("redirectUri", fmt.Errorf("must be %s", strings.ReplaceAll(pattern, portMark, "PORT")))
}

// origin is scheme, host and port of a URL.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
