package client

import (
	"fmt"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// ScopeError says that an API wants scopes which the token does not have (RFC 6750 §3.1, insufficient_scope). Asking again does not help: the credential
// has to get them. It comes out of an http.Client by errors.As, and wraps tokenbroker.ErrScopeNotGranted.
type ScopeError struct {
	Credential string
	Missing    []string // what the API names and the token has not; none if it names nothing
	Host       string   // of the API, as in the URL
}

// Error implements error.
func (e *ScopeError) Error() string {
	what := "a scope that the token does not have, and does not name it"
	if len(e.Missing) > 0 {
		what = "scopes that the token does not have: " + strings.Join(e.Missing, " ")
	}
	return fmt.Sprintf("credential %q: %s wants %s", e.Credential, e.Host, what)
}

// Unwrap gives the sentinel.
func (e *ScopeError) Unwrap() error { return tokenbroker.ErrScopeNotGranted }
