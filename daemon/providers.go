package daemon

import (
	"cmp"
	"slices"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
)

// providers shows a catalogue to operators.
type providers struct {
	catalogue    *provider.Catalogue
	linkRedirect string // "" = no consents by link
}

// List implements server.Providers.
func (p providers) List() []*tokenbrokerv1.Provider {
	var list []*tokenbrokerv1.Provider
	for _, name := range p.catalogue.Names() {
		list = append(list, p.Provider(name))
	}
	return list
}

// Provider implements server.Providers.
func (p providers) Provider(name string) *tokenbrokerv1.Provider {
	profile, ok := p.catalogue.Profile(name)
	if !ok {
		return nil
	}
	out := &tokenbrokerv1.Provider{
		Provider: name, Title: cmp.Or(profile.Title, name), Profile: profile.Base, Configured: slices.Contains(p.catalogue.Configured(), name),
		TokenEndpoint: profile.TokenEndpoint, AuthorizationEndpoint: profile.AuthorizationEndpoint, Notes: profile.Notes,
		Sources: slices.Clone(profile.Sources), Offers: offers(profile),
	}
	for _, g := range profile.Grants {
		out.GrantTypes = append(out.GrantTypes, string(g))
	}
	for _, m := range profile.AuthMethods {
		out.AuthMethods = append(out.AuthMethods, string(m))
	}
	for _, s := range profile.Scopes {
		out.Scopes = append(out.Scopes, &tokenbrokerv1.ScopeMeaning{Scope: s.Name, Meaning: s.Meaning})
	}
	if profile.AuthorizationEndpoint != "" && profile.Knows(tokenbroker.GrantAuthorizationCode) {
		out.LoopbackRedirect, out.LinkRedirect = profile.LoopbackRedirect, p.linkRedirect
	}
	return out
}

// offers names the endpoints that a profile has besides those that have a field of their own.
func offers(p provider.Profile) (list []string) {
	for _, e := range []struct{ name, endpoint string }{
		{"device_authorization", p.DeviceAuthorizationEndpoint}, {"revocation", p.RevocationEndpoint}, {"introspection", p.IntrospectionEndpoint},
		{"userinfo", p.UserinfoEndpoint}, {"test", p.TestEndpoint}, {"jwks", p.JWKSURI},
	} {
		if e.endpoint != "" {
			list = append(list, e.name)
		}
	}
	return list
}
