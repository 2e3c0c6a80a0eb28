package sandbox

import (
	"maps"
	"net/http"
	"slices"
)

// metadata is RFC 8414 §2, with what OpenID Connect Discovery adds.
type metadata struct {
	Issuer         string   `json:"issuer"`
	Authorization  string   `json:"authorization_endpoint"`
	Token          string   `json:"token_endpoint"`
	Device         string   `json:"device_authorization_endpoint"`
	Revocation     string   `json:"revocation_endpoint"`
	Introspection  string   `json:"introspection_endpoint"`
	Userinfo       string   `json:"userinfo_endpoint"`
	JWKS           string   `json:"jwks_uri"`
	Scopes         []string `json:"scopes_supported,omitempty"`
	ResponseTypes  []string `json:"response_types_supported"`
	ResponseModes  []string `json:"response_modes_supported"`
	Grants         []string `json:"grant_types_supported"`
	Challenges     []string `json:"code_challenge_methods_supported"`
	AuthMethods    []string `json:"token_endpoint_auth_methods_supported"`
	AuthAlgorithms []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	Subjects       []string `json:"subject_types_supported"`
	IDAlgorithms   []string `json:"id_token_signing_alg_values_supported"`
	SendsIss       bool     `json:"authorization_response_iss_parameter_supported"`
}

// serveDiscovery is RFC 8414 §3.
func serveDiscovery(v *visit) answer {
	if v.request.Method != http.MethodGet && v.request.Method != http.MethodHead {
		return notAllowed("GET")
	}
	m := metadata{
		Issuer: v.base(), Authorization: v.url(EndpointAuthorize), Token: v.url(EndpointToken), Device: v.url(EndpointDevice),
		Revocation: v.url(EndpointRevoke), Introspection: v.url(EndpointIntrospect), Userinfo: v.url(EndpointUserinfo), JWKS: v.url(EndpointJWKS),
		Scopes: v.issuer.ScopesSupported, ResponseTypes: []string{"code"}, ResponseModes: []string{"query"},
		Grants: slices.Sorted(maps.Keys(grants())), Challenges: []string{"S256"}, AuthMethods: v.issuer.authMethods(),
		Subjects: []string{"public"}, IDAlgorithms: []string{"RS256"}, SendsIss: true,
	}
	for _, a := range every() {
		m.AuthAlgorithms = append(m.AuthAlgorithms, string(a))
	}
	return jsonAnswer(http.StatusOK, m)
}

// authMethods are those of the registered clients.
func (i *issuer) authMethods() []string {
	methods := map[string]bool{}
	for _, c := range i.clients {
		methods[string(c.Auth)] = true
	}
	return slices.Sorted(maps.Keys(methods))
}
