package provider

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Metadata is what a server's own document says of it (RFC 8414 §2, OpenID Connect Discovery §3), as far as a profile has a place for it.
type Metadata struct {
	Issuer       string
	Endpoints    map[string]string // field of the document, which is that of the profile → URL
	IssParameter bool              // authorization_response_iss_parameter_supported (RFC 9207 §3)
}

// DiscoverableFields are the fields with the URL of an endpoint that metadata may give.
func DiscoverableFields() (fields []string) {
	for _, at := range new(Profile).endpoints() {
		if at.field != "refresh_endpoint" && at.field != "test_endpoint" { // no document has these
			fields = append(fields, at.field)
		}
	}
	return fields
}

// Discovered returns the profile with what it leaves open taken from the server's metadata. What the profile gives stays. A URL is taken
// only if the profile itself could have given it, and only on the issuer's host or one that the profile names in an endpoint of its own:
// secrets go there, so nobody but the operator adds a host. The errors say what was not taken; the last result is false if nothing was,
// since the document is another issuer's.
func (p Profile) Discovered(m Metadata) (Profile, []error, bool) {
	if p.Issuer == "" || m.Issuer != p.Issuer {
		return p, []error{errors.New("issuer: is not the profile's")}, false
	}
	filled := p
	fields := DiscoverableFields()
	var refused []error
	for _, at := range filled.endpoints() {
		given := m.Endpoints[at.field]
		if *at.value != "" || given == "" || !slices.Contains(fields, at.field) {
			continue
		}
		if err := p.checkDiscovered(given); err != nil {
			refused = append(refused, fmt.Errorf("%s: %w", at.field, err))
			continue
		}
		*at.value = given
	}
	filled.RefreshEndpoint = cmp.Or(filled.RefreshEndpoint, filled.TokenEndpoint)
	filled.TestEndpoint = cmp.Or(filled.TestEndpoint, filled.UserinfoEndpoint)
	if filled.IssParameter == nil {
		filled.IssParameter = &m.IssParameter
	}
	return filled, refused, true
}

// checkDiscovered judges a URL that the metadata names.
func (p Profile) checkDiscovered(raw string) error {
	u, err := url.Parse(raw)
	if problems := checkURL(p, raw); err != nil || len(problems) > 0 {
		return errors.Join(problems...)
	}
	for _, own := range append(p.endpoints(), slot{"issuer", &p.Issuer}) {
		if at, err := url.Parse(*own.value); err == nil && *own.value != "" && strings.EqualFold(at.Host, u.Host) && at.Scheme == u.Scheme {
			return nil
		}
	}
	return fmt.Errorf("is on %s, which is neither the issuer's host nor named in the profile; name it there if it is right", u.Host)
}
