package grant

import "github.com/tokenbroker/tokenbroker"

// fillClientCredentials asks by RFC 6749 §4.4.2. A request may be repeated freely: nothing is spent.
func fillClientCredentials(q *query, _ tokenbroker.ExchangeRequest) *tokenbroker.Failure {
	q.askScopes()
	return nil
}
