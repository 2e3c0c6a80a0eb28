package grant

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

const (
	fieldResource     = "resource"
	maxParameters     = 32
	maxParameterBytes = 1 << 10
	maxResources      = 16
)

// protocolFields are written by the broker alone.
var protocolFields = []string{
	"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "assertion", "refresh_token", "access_token",
	"scope", "code", "code_verifier", "code_challenge", "code_challenge_method", "redirect_uri", "state", "nonce", "response_type",
	"response_mode", "device_code", "username", "password", "audience", fieldResource, "subject_token", "subject_token_type", "actor_token",
	"actor_token_type", "requested_token_type", "token", "token_type_hint",
	// what would choose a subject, an audience or rights past the policy: RFC 9396, Keycloak, and what some servers take for scope and audience
	"requested_subject", "requested_issuer", "authorization_details", "claims", "aud", "sub", "scp", "scopes",
}

func isProtocolField(name string) bool { return slices.Contains(protocolFields, strings.ToLower(name)) }

// checkParameters judges further form fields.
func checkParameters(parameters map[string]string) error {
	if len(parameters) > maxParameters {
		return fmt.Errorf("%d parameters, at most %d are allowed", len(parameters), maxParameters)
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		lower := strings.ToLower(name)
		switch {
		case name == "" || len(name) > 128 || !printable(name) || strings.Contains(name, " "):
			return errors.New("the name of a parameter must be 1 to 128 characters of printable ASCII without blanks")
		case isProtocolField(name):
			return fmt.Errorf("parameter %q is written by the broker; use scopes, audience, resources or subject of the credential", name)
		case strings.Contains(lower, "secret") || strings.Contains(lower, "password") || strings.HasSuffix(lower, "api_key") || strings.HasSuffix(lower, "apikey"):
			return fmt.Errorf("parameter %q looks like a secret, which parameters are not kept as; add it to the OAuth client", name)
		case len(parameters[name]) > maxParameterBytes || !printable(parameters[name]):
			return fmt.Errorf("parameter %q must be at most %d characters of printable ASCII", name, maxParameterBytes)
		}
	}
	return nil
}

// checkResources judges resource indicators (RFC 8707 §2).
func checkResources(list []string) error {
	if len(list) > maxResources {
		return fmt.Errorf("%d resources, at most %d are allowed", len(list), maxResources)
	}
	for i, uri := range list {
		u, err := url.Parse(uri)
		switch {
		case err != nil || !u.IsAbs() || u.Host == "" && u.Opaque == "" || !printable(uri) || len(uri) > tokenbroker.MaxAudienceBytes:
			return fmt.Errorf("resource %d must be an absolute URI, e.g. https://api.example.com/ (RFC 8707 §2)", i+1)
		case u.Fragment != "" || strings.Contains(uri, "#"):
			return fmt.Errorf("resource %d must not have a fragment (#...) (RFC 8707 §2)", i+1)
		}
	}
	return nil
}
