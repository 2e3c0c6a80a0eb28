package grant

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// open starts a query on behalf of an OAuth client that is not an exchange of its credential.
func (c *Client) open(cred tokenbroker.Credential, client tokenbroker.OAuthClient) (*query, *tokenbroker.Failure) {
	e, ok := c.at(cred.Provider)
	switch {
	case !ok:
		return nil, refuse("unknown_provider")
	case client.Provider != e.name:
		return nil, refuse("client_of_another_provider")
	case client.ClientID == "":
		return nil, refuse("client_id_missing")
	}
	return &query{call: e.newCall("")}, nil
}

// need is the failure of an endpoint that is not known: it may yet be discovered, or the provider has none.
func (e *endpoint) need(url, without string) *tokenbroker.Failure {
	switch {
	case url != "":
		return nil
	case e.pending:
		return &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "discovery_pending"}
	}
	return refuse(without)
}

// get asks one of the provider's URLs, with a token as the bearer unless it is zero. It changes nothing there, so whatever is lost on the
// way may be asked again.
func (e *endpoint) get(ctx context.Context, from string, token tokenbroker.Secret, limit int64) (answer, error) {
	q := e.newCall(from)
	q.method, q.limit = http.MethodGet, limit
	if !token.IsZero() {
		q.header.Set("Authorization", "Bearer "+token.Reveal())
	}
	a, err := q.send(ctx)
	return a, repeatable(err)
}

// repeatable is the failure of a request that may be repeated however far it came.
func repeatable(err error) error {
	var f *tokenbroker.Failure
	if errors.As(err, &f) && f.Class == tokenbroker.ClassAmbiguous {
		again := *f
		again.Class = tokenbroker.ClassTransient
		return &again
	}
	return err
}

// shown returns a name that a provider gave to a person or a thing if it can be shown as it is, "" otherwise.
func shown(s string) string {
	s = strings.TrimSpace(s)
	if tokenbroker.ValidateSubject(s) != nil {
		return ""
	}
	return s
}
