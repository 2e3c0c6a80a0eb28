package grant

import (
	"cmp"

	"github.com/tokenbroker/tokenbroker"
)

// refreshToken asks by RFC 6749 §6. It is also how grants that a person consented to live on.
func refreshToken() grantKind {
	return grantKind{is: tokenbroker.GrantRefreshToken, wire: "refresh_token", public: true, refreshes: true, fill: fillRefreshToken, check: checkConsent}
}

// fillRefreshToken spends the refresh token. Scopes are left out when they are those of the grant, as the RFC has it, unless the
// profile wants them.
func fillRefreshToken(q *query, r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	switch {
	case !r.RefreshToken.IsZero():
	case r.Credential.Grant.Consents() && r.Holds == tokenbroker.HoldsNothing:
		return needsPerson("no_refresh_token") // the consent brought none: only another one helps
	case r.Credential.Grant.Consents():
		return needsPerson("consent_needed")
	default:
		return refuse("refresh_token_missing")
	}
	q.url = cmp.Or(q.at.profile.RefreshEndpoint, q.url)
	q.form.Set("refresh_token", r.RefreshToken.Reveal())
	q.secrets = append(q.secrets, r.RefreshToken.Reveal())
	q.spends, q.single = true, q.at.traits.Rotates
	if always := q.at.profile.ScopeOnRefresh; q.narrower || always != nil && *always {
		q.askScopes()
	}
	return nil
}

// needsPerson is the failure of a grant that lives on nothing until somebody consents.
func needsPerson(code string) *tokenbroker.Failure {
	return &tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant, Code: code}
}

// checkConsent judges grants by consent.
func checkConsent(p pair) []error {
	if p.cred.Grant != tokenbroker.GrantAuthorizationCode || p.client == nil || !p.client.Auth.Public() || p.at.profile.PKCE != "off" {
		return nil
	}
	return []error{invalid("spec.oauthClient", "OAuth client %q is public and provider %s has pkce: off: a code that leaks could be redeemed by anyone; "+
		"use a client with a secret, or switch PKCE on (RFC 9700 §2.1.1)", p.client.Name, p.at.name)}
}
