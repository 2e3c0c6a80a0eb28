package grant

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// The ways to ask for a revocation; see provider.Profile.RevocationStyle.
const (
	revokeBearer = "bearer"
	revokeQuery  = "query"
	revokeGitHub = "github"
)

// goneCodes are errors that say the token is dead already. RFC 7009 §2.2 answers 200 to that; not everybody does.
var goneCodes = []string{"invalid_token", "token_revoked", "token_expired", "invalid_auth", "account_inactive", "not_authed"}

// Revoke ends a token at the provider (RFC 7009). nil means that it is dead there, or that the provider does not know it. It may be
// repeated. An error is a *tokenbroker.Failure: revocation_not_supported (configuration, unsent) where the provider has no way to.
func (c *Client) Revoke(ctx context.Context, r tokenbroker.RevokeRequest) error {
	if r.Client.Name == "" && r.Credential.Grant.Clientless() { // a revocation is a client's to ask for (RFC 7009 §2.1)
		return refuse("revocation_not_supported")
	}
	q, failure := c.open(r.Credential, r.Client)
	if failure != nil {
		return failure
	}
	if failure := q.at.need(q.at.profile.RevocationEndpoint, "revocation_not_supported"); failure != nil {
		return failure
	}
	if r.Token.IsZero() {
		return refuse("token_missing")
	}
	q.url = q.at.profile.RevocationEndpoint
	q.secrets = append(q.secrets, r.Token.Reveal())
	if failure := q.askRevocation(r); failure != nil {
		return failure
	}
	raw, err := c.ask(ctx, &q.call)
	if err != nil {
		return repeatable(err)
	}
	if failure := q.revoked(raw); failure != nil {
		return repeatable(failure)
	}
	return nil
}

// askRevocation writes the request in the profile's style.
func (q *query) askRevocation(r tokenbroker.RevokeRequest) *tokenbroker.Failure {
	token := r.Token.Reveal()
	switch q.at.profile.RevocationStyle {
	case revokeBearer:
		if r.Kind != tokenbroker.AccessTokenKind {
			return refuse("revocation_not_supported") // another kind is no bearer token
		}
		q.header.Set("Authorization", "Bearer "+token)
		return nil
	case revokeQuery:
		q.form.Set("token", token) // in the body all the same: URLs end up in logs
		return nil
	case revokeGitHub:
		return q.askGitHub(r)
	}
	q.form.Set("token", token)
	if r.Kind != "" {
		q.form.Set("token_type_hint", string(r.Kind))
	}
	return q.identify(r.Client, r.Secret)
}

// askGitHub writes GitHub's own request: DELETE with the client's Basic header and the access token in JSON.
func (q *query) askGitHub(r tokenbroker.RevokeRequest) *tokenbroker.Failure {
	switch {
	case r.Kind != tokenbroker.AccessTokenKind:
		return refuse("revocation_not_supported")
	case r.Secret.Secret.IsZero():
		return refuse("client_secret_missing")
	}
	q.method, q.format = http.MethodDelete, formatJSON
	q.url = strings.ReplaceAll(q.url, "{client_id}", url.PathEscape(r.Client.ClientID))
	q.form.Set("access_token", r.Token.Reveal())
	q.secrets = append(q.secrets, r.Secret.Secret.Reveal())
	q.header.Set("Authorization", "Basic "+q.basic(r.Client.ClientID, r.Secret.Secret))
	return nil
}

// revoked reads the reply; nil means that the token is dead.
func (q *query) revoked(a answer) *tokenbroker.Failure {
	p := q.at.profile
	top := parse(a.body, a.fault != "")
	code := errorCode(top, p.ErrorPath)
	refused := a.status/100 != 2 || code != "" || p.OKField != "" && top.scalar(p.OKField) == "false"
	bearer, github := p.RevocationStyle == revokeBearer, p.RevocationStyle == revokeGitHub
	switch {
	case !refused:
		return nil
	case a.status < http.StatusInternalServerError && slices.Contains(goneCodes, q.clean(code)):
		return nil
	case bearer && a.status == http.StatusUnauthorized: // the token was all that spoke for the request
		return nil
	case github && (a.status == http.StatusNotFound || a.status == http.StatusUnprocessableEntity):
		return nil
	}
	return q.refusal(a, top)
}
