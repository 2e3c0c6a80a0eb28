package grant

import "github.com/tokenbroker/tokenbroker"

// fillRefreshToken asks by RFC 6749 §6. Scopes are left out when they are those of the grant, as the RFC has it, unless the
// profile wants them.
func fillRefreshToken(q *query, r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	if r.RefreshToken.IsZero() {
		return refuse("refresh_token_missing")
	}
	q.form.Set("refresh_token", r.RefreshToken.Reveal())
	q.secrets = append(q.secrets, r.RefreshToken.Reveal())
	if always := q.at.profile.ScopeOnRefresh; q.narrower || always != nil && *always {
		q.askScopes()
	}
	return nil
}
