package grant

import (
	"net/url"
	"slices"

	"github.com/tokenbroker/tokenbroker"
)

// callbackClass is what the error codes of an authorization endpoint mean (RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6). What is not
// here is configuration.
var callbackClass = map[string]tokenbroker.Class{
	"access_denied":              tokenbroker.ClassDeadGrant,
	"login_required":             tokenbroker.ClassDeadGrant,
	"consent_required":           tokenbroker.ClassDeadGrant,
	"interaction_required":       tokenbroker.ClassDeadGrant,
	"account_selection_required": tokenbroker.ClassDeadGrant,
	"server_error":               tokenbroker.ClassTransient,
	"temporarily_unavailable":    tokenbroker.ClassTransient,
}

// CheckCallback judges the query of a callback, before its code is redeemed: that each parameter is there once, that it comes from the
// provider that was asked (RFC 9207), and that it carries a code, no error and no token: those of the implicit grant (RFC 6749 §4.2) are bound
// to nothing, and were seen by the browser. Whether its state is ours is for the caller to know,
// beforehand. The error is a *tokenbroker.Failure: iss_mismatch, iss_missing, token_in_callback, the
// provider's own code, cleaned, or code_missing.
func (c *Client) CheckCallback(provider string, q url.Values) error {
	e, ok := c.at(provider)
	if !ok {
		return refuse("unknown_provider")
	}
	for _, name := range []string{"code", "state", "iss", "error"} {
		if len(q[name]) > 1 {
			return refuse("repeated_parameter")
		}
	}
	promised := e.profile.IssParameter != nil && *e.profile.IssParameter
	switch iss := q.Get("iss"); {
	case iss == "" && promised:
		return refuse("iss_missing")
	case iss != "" && e.profile.Issuer != "" && iss != e.profile.Issuer:
		return refuse("iss_mismatch")
	}
	if q.Has("access_token") || q.Has("refresh_token") || q.Has("id_token") {
		return refuse("token_in_callback")
	}
	if given := q.Get("error"); given != "" {
		return e.denied(given, q)
	}
	if q.Get("code") == "" {
		return refuse("code_missing")
	}
	return nil
}

// denied is the failure of a callback that says no.
func (e *endpoint) denied(given string, q url.Values) *tokenbroker.Failure {
	judge := &call{at: e, secrets: slices.DeleteFunc([]string{q.Get("state"), q.Get("code")}, func(s string) bool { return s == "" })}
	f := &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: judge.clean(given), Sent: true}
	if class, known := callbackClass[f.Code]; known {
		f.Class = class
	}
	return f
}
