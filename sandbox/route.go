package sandbox

import "strings"

// Endpoint names one path of an issuer: /{issuer}/{endpoint}.
type Endpoint string

// The endpoints.
const (
	EndpointToken      Endpoint = "token"      // RFC 6749 §3.2
	EndpointAuthorize  Endpoint = "authorize"  // RFC 6749 §3.1
	EndpointDevice     Endpoint = "device"     // RFC 8628 §3.1
	EndpointActivate   Endpoint = "activate"   // where a person enters a user code
	EndpointRevoke     Endpoint = "revoke"     // RFC 7009
	EndpointIntrospect Endpoint = "introspect" // RFC 7662
	EndpointJWKS       Endpoint = "jwks"       // RFC 7517
	EndpointUserinfo   Endpoint = "userinfo"   // OpenID Connect Core §5.3
	EndpointResource   Endpoint = "resource"   // RFC 6750

	// EndpointDiscovery is also at /.well-known/oauth-authorization-server/{issuer} (RFC 8414 §3.1).
	EndpointDiscovery Endpoint = ".well-known/openid-configuration"
)

const (
	wellKnownOAuth Endpoint = ".well-known/oauth-authorization-server"
	wellKnownOIDC           = EndpointDiscovery
)

// endpoints is the routing table. A further endpoint is one row here and a file of its own. Each runs with the issuer locked.
func endpoints() map[Endpoint]func(*visit) answer {
	return map[Endpoint]func(*visit) answer{
		EndpointToken:      serveToken,
		EndpointAuthorize:  serveAuthorize,
		EndpointDevice:     serveDevice,
		EndpointActivate:   serveActivate,
		EndpointRevoke:     serveRevoke,
		EndpointIntrospect: serveIntrospect,
		EndpointJWKS:       serveJWKS,
		EndpointUserinfo:   serveUserinfo,
		EndpointResource:   serveResource,
		EndpointDiscovery:  serveDiscovery,
	}
}

// route finds issuer and endpoint in a path.
func route(path string) (issuer string, e Endpoint) {
	path = strings.TrimPrefix(path, "/")
	for _, known := range []Endpoint{wellKnownOAuth, wellKnownOIDC} {
		if name, ok := strings.CutPrefix(path, string(known)+"/"); ok {
			return name, EndpointDiscovery
		}
	}
	name, rest, _ := strings.Cut(path, "/")
	if Endpoint(rest) == wellKnownOAuth {
		return name, EndpointDiscovery
	}
	return name, Endpoint(rest)
}

// authenticates reports whether a client has to say at an endpoint who it is.
func (e Endpoint) authenticates() bool {
	return e == EndpointToken || e == EndpointDevice || e == EndpointRevoke || e == EndpointIntrospect
}
