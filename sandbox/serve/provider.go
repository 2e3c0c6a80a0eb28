package serve

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

//go:embed demo.yaml
var demo []byte

// Demo is a scenario to start from: one issuer where every grant can be used.
func Demo() []byte { return demo }

// Issuers are the names of the issuers, in the order of the scenario.
func (s *Server) Issuers() []string {
	names := make([]string, 0, len(s.issuers))
	for _, i := range s.issuers {
		names = append(names, i.Name)
	}
	return names
}

// Providers is the part of a broker's configuration that makes the issuers its providers, in YAML. The file holds the CA; ""
// stands for none.
func (s *Server) Providers(caFile string) string {
	var b strings.Builder
	b.WriteString("providers:\n")
	for _, i := range s.issuers {
		line := func(format string, args ...any) { fmt.Fprintf(&b, "    "+format+"\n", args...) }
		fmt.Fprintf(&b, "  %s:\n", i.Name)
		line("issuer: %s", issuerURL(s.URL, i))
		for _, e := range endpoints() {
			line("%s: %s/%s/%s", e.field, s.URL, i.Name, e.at)
		}
		line("iss_parameter: true")
		line("consent_scopes: [openid]") // says whose account it is
		if s.CA == nil {
			line("insecure_loopback: true")
		} else {
			line("allow_private: true")
		}
		if caFile != "" {
			line("ca_file: %q", caFile)
		}
		policy(i, line)
	}
	return b.String()
}

type endpoint struct {
	field string // of a provider's profile
	at    sandbox.Endpoint
}

func endpoints() []endpoint {
	return []endpoint{
		{"token_endpoint", sandbox.EndpointToken},
		{"authorization_endpoint", sandbox.EndpointAuthorize},
		{"device_authorization_endpoint", sandbox.EndpointDevice},
		{"revocation_endpoint", sandbox.EndpointRevoke},
		{"introspection_endpoint", sandbox.EndpointIntrospect},
		{"userinfo_endpoint", sandbox.EndpointUserinfo},
		{"test_endpoint", sandbox.EndpointResource},
		{"jwks_uri", sandbox.EndpointJWKS},
	}
}

func issuerURL(base string, i sandbox.Issuer) string {
	if i.URL != "" {
		return i.URL
	}
	return base + "/" + i.Name
}

// policy says what differs from the strict reading, which is the default at both ends.
func policy(i sandbox.Issuer, line func(string, ...any)) {
	if i.Rotation == sandbox.RotateNone {
		line("rotates: false")
	}
	if i.Grace > 0 {
		line("grace: %s", i.Grace)
	}
	if i.RefreshLife > 0 {
		line("idle_life: %s", i.RefreshLife)
	}
	if i.KillsOld {
		line("kills_old: true")
	}
	if i.Downscope {
		line("downscopes: true")
	}
}
