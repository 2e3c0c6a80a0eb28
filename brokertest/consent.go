package brokertest

import (
	"net"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker/consent"
	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// takeWeb takes a port for the consent listener before there is anybody to tell it to.
func (b *Broker) takeWeb() {
	b.t.Helper()
	b.web = Addr(b.t)
	b.WebURL = "https://localhost" + b.web[strings.LastIndexByte(b.web, ':'):]
}

// startWeb is the consent listener of the next start. It is on the same port each time.
func (b *Broker) startWeb() daemon.Consent {
	b.t.Helper()
	l, err := net.Listen("tcp", b.web)
	b.must("listen for browsers", err)
	return daemon.Consent{Listener: l, PublicURL: b.WebURL, Cert: b.path("server.pem"), Key: b.path("server.key")}
}

// registerWeb registers the consent listener's redirect URI for the clients that have one.
func (b *Broker) registerWeb() {
	if b.WebURL == "" {
		return
	}
	for i := range b.cfg.Issuers {
		for j := range b.cfg.Issuers[i].Clients {
			if c := &b.cfg.Issuers[i].Clients[j]; len(c.RedirectURIs) > 0 {
				c.RedirectURIs = append(c.RedirectURIs, b.WebURL+consent.CallbackPath)
			}
		}
	}
}

// consentEndpoints adds to a profile what consents need, if people consent at the issuer: if some client of it has a redirect URI.
func consentEndpoints(is sandbox.Issuer, p *provider.Profile) {
	if !slices.ContainsFunc(is.Clients, func(c sandbox.Client) bool { return len(c.RedirectURIs) > 0 }) {
		return
	}
	at := func(endpoint sandbox.Endpoint) string {
		return "https://sandbox.example/" + is.Name + "/" + string(endpoint)
	}
	p.AuthorizationEndpoint, p.DeviceAuthorizationEndpoint = at(sandbox.EndpointAuthorize), at(sandbox.EndpointDevice)
	p.RevocationEndpoint, p.UserinfoEndpoint, p.ConsentScopes = at(sandbox.EndpointRevoke), at(sandbox.EndpointUserinfo), []string{"openid"}
}
