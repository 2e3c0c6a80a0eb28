package grant

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// grantKind is what differs from grant to grant.
type grantKind struct {
	public bool // a client without a secret may use it
	spends bool // sends a refresh token
	fill   func(*query, tokenbroker.ExchangeRequest) *tokenbroker.Failure
}

// kindOf returns the grants that this package knows.
func kindOf(t tokenbroker.GrantType) (grantKind, bool) {
	switch t {
	case tokenbroker.GrantClientCredentials:
		return grantKind{fill: fillClientCredentials}, true
	case tokenbroker.GrantRefreshToken:
		return grantKind{public: true, spends: true, fill: fillRefreshToken}, true
	}
	return grantKind{}, false
}

// newForm starts a form with the profile's own fields, so that those of the protocol win over them.
func (e *endpoint) newForm() url.Values {
	form := url.Values{}
	for name, value := range e.profile.TokenParams {
		form.Set(name, value)
	}
	return form
}

func (e *endpoint) newHeader() http.Header {
	h := http.Header{
		"Content-Type":    {"application/x-www-form-urlencoded"},
		"Accept-Encoding": {"identity"},
		"User-Agent":      {"tokenbroker"},
	}
	if e.profile.Accept != "" {
		h.Set("Accept", e.profile.Accept)
	}
	return h
}

// askVariant checks the scopes and writes the audience. Scopes beyond the grant are never asked for: no caller may widen
// what an operator set up.
func (q *query) askVariant(r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	granted := r.Credential.Scopes
	beyond := func(s string) bool { return !slices.Contains(granted, s) }
	switch {
	case q.asked.Subject != "":
		return refuse("subject_not_supported")
	case len(granted) > 0 && slices.ContainsFunc(q.asked.Scopes, beyond):
		return refuse("invalid_scope")
	case q.narrower && !q.at.traits.Downscopes:
		return refuse("downscope_not_supported")
	}
	if q.asked.Audience != "" {
		q.form.Set(q.at.profile.AudienceParameter, q.asked.Audience)
	}
	return nil
}

func (q *query) askGrant(r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	q.form.Set("grant_type", string(r.Credential.Grant))
	return q.grant.fill(q, r)
}

// askScopes writes the scope field, if there is anything to write.
func (q *query) askScopes() {
	if len(q.asked.Scopes) > 0 {
		q.form.Set("scope", strings.Join(q.asked.Scopes, q.at.profile.ScopeSeparator))
	}
}

// authenticate adds the client's identity. A client that has nothing to show may use public grants alone.
func (q *query) authenticate(r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	if r.Client.Auth.Public() && !q.grant.public {
		return refuse("client_is_public")
	}
	return q.identify(r.Client, r.Secret)
}
