package grant

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// Check judges an access token as a resource server would, by the best way that the provider offers: introspection (RFC 7662) where the
// client can authenticate, its signature and claims where it is a JWT and the provider's keys are known, the profile's test call. A way that
// the provider refuses us gives place to the next. The reply holds nothing of the token. An error is a *tokenbroker.Failure and no verdict:
// the provider could not be asked.
func (c *Client) Check(ctx context.Context, r tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) {
	q, failure := c.openCheck(r)
	if failure != nil {
		return tokenbroker.CheckReply{}, failure
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var last error
	for _, way := range q.ways(r) {
		out, err := way(ctx, r)
		if err == nil {
			return out, nil
		}
		if last == nil {
			last = err // the best way's
		}
		var f *tokenbroker.Failure
		if errors.As(err, &f) && f.Class != tokenbroker.ClassConfiguration {
			break // it would do another time
		}
	}
	switch {
	case last != nil:
		return tokenbroker.CheckReply{}, last
	case q.at.pending:
		return tokenbroker.CheckReply{}, q.at.need("", "")
	}
	return tokenbroker.CheckReply{Method: tokenbroker.CheckNone}, nil
}

// openCheck starts a query. A grant without an OAuth client has nobody to introspect as.
func (c *Client) openCheck(r tokenbroker.CheckRequest) (*query, *tokenbroker.Failure) {
	if r.Token.AccessToken.IsZero() {
		return nil, refuse("token_missing")
	}
	if r.Credential.Grant.Clientless() || r.Client.ClientID == "" {
		e, ok := c.at(r.Credential.Provider)
		if !ok {
			return nil, refuse("unknown_provider")
		}
		return &query{call: e.newCall("")}, nil
	}
	return c.open(r.Credential, r.Client)
}

type checkFunc func(context.Context, tokenbroker.CheckRequest) (tokenbroker.CheckReply, error)

// ways are the ways to judge the token, the best first.
func (q *query) ways(r tokenbroker.CheckRequest) (list []checkFunc) {
	p := q.at.profile
	own := r.Credential.Grant == tokenbroker.GrantSelfSignedJWT // signed by us, so the provider's keys say nothing
	if p.IntrospectionEndpoint != "" && r.Client.ClientID != "" && !r.Client.Auth.Public() && !r.Secret.Secret.IsZero() && !own {
		list = append(list, q.introspect)
	}
	if _, isJWT := jwtClaims(r.Token.AccessToken.Reveal()); isJWT && p.JWKSURI != "" && !own {
		list = append(list, q.at.judgeJWT)
	}
	if p.TestEndpoint != "" {
		list = append(list, q.try)
	}
	return list
}

// introspect asks by RFC 7662 §2.
func (q *query) introspect(ctx context.Context, r tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) {
	q.url = q.at.profile.IntrospectionEndpoint
	q.form.Set("token", r.Token.AccessToken.Reveal())
	q.form.Set("token_type_hint", string(tokenbroker.AccessTokenKind))
	q.secrets = append(q.secrets, r.Token.AccessToken.Reveal())
	if failure := q.identify(r.Client, r.Secret); failure != nil {
		return tokenbroker.CheckReply{}, failure
	}
	a, err := q.send(ctx)
	if err != nil {
		return tokenbroker.CheckReply{}, repeatable(err)
	}
	out, failure := q.introspected(a, r.Credential.Scopes)
	if failure != nil {
		return tokenbroker.CheckReply{}, repeatable(failure)
	}
	return out, nil
}

// introspected reads the reply. Only a clear yes is a yes.
func (q *query) introspected(a answer, asked []string) (tokenbroker.CheckReply, *tokenbroker.Failure) {
	top := parse(a.body, a.fault != "")
	active := string(top.value("active"))
	switch {
	case a.status != http.StatusOK:
		return tokenbroker.CheckReply{}, q.refusal(a, top)
	case !top.whole:
		return tokenbroker.CheckReply{}, q.unreadable(a)
	case active != "true" && active != "false" || top.isUnclear("active", "exp", "scope", "aud", "sub", "username"):
		return tokenbroker.CheckReply{}, q.fault(a, tokenbroker.ClassConfiguration, "bad_introspection")
	}
	out := tokenbroker.CheckReply{Method: tokenbroker.CheckIntrospection, Skew: a.skew}
	if active == "false" {
		out.Code = "inactive"
		return out, nil
	}
	out.Active = true
	q.at.describe(&out, top, asked)
	if carries(slices.Concat(out.Scopes, out.Audience, []string{out.Account}), q.secrets) {
		return tokenbroker.CheckReply{}, q.fault(a, tokenbroker.ClassConfiguration, "bad_introspection")
	}
	return out, nil
}

// describe takes what the claims say (RFC 7662 §2.2, RFC 9068 §2.2), the scopes in the spelling that they were asked for in.
func (e *endpoint) describe(out *tokenbroker.CheckReply, claims fields, asked []string) {
	out.Expiry, _ = claims.instant("exp")
	for _, name := range []string{"scope", "scp"} {
		if out.Scopes == nil {
			out.Scopes = e.scopesOf(claims, name, asked)
		}
	}
	for _, s := range claims.list("aud") {
		if tokenbroker.ValidateAudience(s) == nil {
			out.Audience = append(out.Audience, s)
		}
	}
	for _, name := range []string{"username", "email", "sub"} {
		if out.Account = shown(claims.scalar(name)); out.Account != "" {
			return
		}
	}
}

// scopesOf returns the scopes that a claim names, as they were asked for; nil if it names none.
func (e *endpoint) scopesOf(claims fields, name string, asked []string) []string {
	given := slices.DeleteFunc(claims.texts(name, e.profile.ScopeSeparator), func(s string) bool { return s == "" })
	named := slices.DeleteFunc(e.profile.AsAsked(given, asked), func(s string) bool { return tokenbroker.ValidateScopes([]string{s}) != nil })
	if len(named) == 0 {
		return nil
	}
	return named
}

// try makes the profile's test call with the token.
func (q *query) try(ctx context.Context, r tokenbroker.CheckRequest) (tokenbroker.CheckReply, error) {
	p := q.at.profile
	test := q.at.newCall(p.TestEndpoint)
	test.method, test.secrets = http.MethodGet, []string{r.Token.AccessToken.Reveal()}
	if p.APIKeyHeader != "" && r.Credential.Grant == tokenbroker.GrantStatic {
		test.header.Set(p.APIKeyHeader, r.Token.AccessToken.Reveal())
	} else {
		test.header.Set("Authorization", "Bearer "+r.Token.AccessToken.Reveal())
	}
	a, err := test.send(ctx)
	if err != nil {
		return tokenbroker.CheckReply{}, repeatable(err)
	}
	out, failure := test.tried(a)
	if failure != nil {
		return tokenbroker.CheckReply{}, repeatable(failure)
	}
	return out, nil
}

// tried reads the reply to a test call. What is neither yes nor no says nothing of the token.
func (q *call) tried(a answer) (tokenbroker.CheckReply, *tokenbroker.Failure) {
	out := tokenbroker.CheckReply{Method: tokenbroker.CheckTestCall, Skew: a.skew}
	top := parse(a.body, a.fault != "")
	refused := q.at.profile.OKField != "" && top.scalar(q.at.profile.OKField) == "false"
	switch {
	case a.status/100 == 2 && refused && slices.Contains(goneCodes, q.clean(errorCode(top, q.at.profile.ErrorPath))):
		out.Code = q.clean(errorCode(top, q.at.profile.ErrorPath))
	case a.status/100 == 2 && !refused:
		out.Active = true
	case a.status == http.StatusUnauthorized:
		out.Code = httpCode(a.status)
	case a.status == http.StatusForbidden:
		out.Active, out.Code = true, httpCode(a.status)
		if strings.Contains(strings.ToLower(a.header.Get("WWW-Authenticate")), "insufficient_scope") || errorCode(top, "error") == "insufficient_scope" {
			out.Code = "insufficient_scope" // RFC 6750 §3.1
		}
	default:
		return out, q.refusal(a, top)
	}
	return out, nil
}

func httpCode(status int) string { return "http_" + strconv.Itoa(status) }
