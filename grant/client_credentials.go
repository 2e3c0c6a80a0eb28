package grant

import "github.com/tokenbroker/tokenbroker"

// clientCredentials asks by RFC 6749 §4.4.2. A request may be repeated freely: nothing is spent.
func clientCredentials() grantKind {
	return grantKind{is: tokenbroker.GrantClientCredentials, wire: "client_credentials", fill: func(q *query, _ tokenbroker.ExchangeRequest) *tokenbroker.Failure {
		q.askScopes()
		return nil
	}}
}
