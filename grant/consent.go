package grant

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// AuthorizationURL returns where a person consents (RFC 6749 §4.1.1): the profile's endpoint and parameters, with those of the
// protocol over them. It asks for a code and nothing else, with PKCE S256 unless the profile says that the server refuses it; a
// public client never goes without. An error is a *tokenbroker.Failure.
func (c *Client) AuthorizationURL(r tokenbroker.AuthorizationRequest) (string, error) {
	q, failure := c.open(r.Credential, r.Client)
	if failure != nil {
		return "", failure
	}
	p := q.at.profile
	if failure := q.at.need(p.AuthorizationEndpoint, "authorization_not_supported"); failure != nil {
		return "", failure
	}
	u, err := url.Parse(p.AuthorizationEndpoint)
	if err != nil {
		return "", refuse("bad_authorization_endpoint")
	}
	scopes, failure := q.at.consentScopes(r.Scopes, r.Credential)
	if failure != nil {
		return "", failure
	}
	v := u.Query()
	for name, value := range p.AuthorizationParams {
		v.Set(name, value)
	}
	q.form = v
	q.askTargets(r.Credential.Audience, r.Credential)
	if failure := q.askCode(r, scopes); failure != nil {
		return "", failure
	}
	u.RawQuery = strings.ReplaceAll(v.Encode(), "+", "%20") // some servers know only this spelling of a blank
	return u.String(), nil
}

// askCode writes the fields of the protocol.
func (q *query) askCode(r tokenbroker.AuthorizationRequest, scopes []string) *tokenbroker.Failure {
	switch {
	case r.State == "":
		return refuse("state_missing")
	case r.RedirectURI == "":
		return refuse("redirect_uri_missing")
	}
	v := q.form
	v.Set("response_type", "code")
	v.Set("client_id", r.Client.ClientID)
	v.Set("redirect_uri", r.RedirectURI)
	v.Set("state", r.State)
	if len(scopes) > 0 {
		v.Set(q.at.profile.ScopeParameter, strings.Join(scopes, q.at.profile.ScopeSeparator))
	}
	if r.LoginHint != "" {
		v.Set("login_hint", r.LoginHint)
	}
	if r.Nonce != "" && slices.Contains(scopes, "openid") {
		v.Set("nonce", r.Nonce)
	}
	pkce, failure := q.pkce(r.Client)
	switch {
	case failure != nil:
		return failure
	case !pkce:
		return nil
	case !isVerifier(r.Verifier.Reveal()):
		return refuse("bad_code_verifier")
	}
	sum := sha256.Sum256([]byte(r.Verifier.Reveal()))
	v.Set("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
	v.Set("code_challenge_method", "S256")
	return nil
}

// pkce says whether a consent is bound to a verifier (RFC 7636). Nothing else would bind that of a public client.
func (q *query) pkce(client tokenbroker.OAuthClient) (bool, *tokenbroker.Failure) {
	if q.at.profile.PKCE != "off" {
		return true, nil
	}
	if client.Auth.Public() {
		return false, refuse("pkce_required")
	}
	return false, nil
}

// isVerifier reports whether s is a code-verifier of RFC 7636 §4.1.
func isVerifier(s string) bool {
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	return len(s) >= 43 && len(s) <= 128 && strings.Trim(s, unreserved) == ""
}

// consentScopes are the scopes to ask a person for: the caller's or the credential's, and the profile's own.
func (e *endpoint) consentScopes(asked []string, cred tokenbroker.Credential) ([]string, *tokenbroker.Failure) {
	if len(asked) == 0 {
		asked = cred.Scopes
	}
	scopes := slices.Clone(asked)
	for _, s := range e.profile.ConsentScopes {
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	if err := e.checkScopes(scopes); err != nil {
		return nil, refuse("invalid_scope")
	}
	return scopes, nil
}

// besides are the scopes that the profile has people asked for, so that it is known whose account it is, and that nobody else asks for.
// Workers are not told of them: what a rule has to allow is what somebody chose.
func (e *endpoint) besides(asked ...[]string) []string {
	all := slices.Concat(asked...)
	return slices.DeleteFunc(slices.Clone(e.profile.ConsentScopes), func(s string) bool { return slices.Contains(all, s) })
}

// Redeem sends an authorization code, at most once, like [Client.Exchange]. The reply need not hold a refresh token: not every
// provider gives one. It says whose account it is where the provider tells, and which scopes were granted where the reply names
// them. An id_token that is not for this client and this consent is a failure; a refresh token that came with it is in the reply, to
// be revoked.
func (c *Client) Redeem(ctx context.Context, r tokenbroker.CodeRequest) (tokenbroker.ExchangeReply, error) {
	q, failure := c.open(r.Credential, r.Client)
	if failure != nil {
		return tokenbroker.ExchangeReply{}, failure
	}
	if failure := q.askTokens(r); failure != nil {
		return tokenbroker.ExchangeReply{}, failure
	}
	check := idCheck{clientID: r.Client.ClientID}
	if slices.Contains(q.asked.Scopes, "openid") {
		check.nonce = r.Nonce
	}
	return c.conclude(ctx, q, check)
}

// askTokens writes the form that redeems a code.
func (q *query) askTokens(r tokenbroker.CodeRequest) *tokenbroker.Failure {
	scopes, failure := q.at.consentScopes(r.Scopes, r.Credential)
	switch {
	case failure != nil:
		return failure
	case r.Code.IsZero():
		return refuse("code_missing")
	case r.RedirectURI == "":
		return refuse("redirect_uri_missing")
	}
	q.asked, q.besides = tokenbroker.NewVariant(scopes, "", ""), q.at.besides(r.Scopes, r.Credential.Scopes)
	if failure := q.startTokens(r.Credential); failure != nil {
		return failure
	}
	q.form.Set("grant_type", cmp.Or(q.at.profile.GrantTypes[tokenbroker.GrantAuthorizationCode], "authorization_code"))
	q.form.Set("code", r.Code.Reveal())
	q.form.Set("redirect_uri", r.RedirectURI)
	q.secrets = append(q.secrets, r.Code.Reveal())
	pkce, failure := q.pkce(r.Client)
	switch {
	case failure != nil:
		return failure
	case pkce && !isVerifier(r.Verifier.Reveal()):
		return refuse("bad_code_verifier")
	case pkce:
		q.form.Set("code_verifier", r.Verifier.Reveal())
		q.secrets = append(q.secrets, r.Verifier.Reveal())
	}
	return q.identify(r.Client, r.Secret)
}

// startTokens starts the form of a token request: what the profile and the credential add, and whom the tokens are for.
func (q *query) startTokens(cred tokenbroker.Credential) *tokenbroker.Failure {
	q.form = q.at.newForm()
	for name, value := range cred.Parameters {
		if isProtocolField(name) {
			return refuse("parameter_not_allowed")
		}
		q.form.Set(name, value)
	}
	q.askTargets(cred.Audience, cred)
	return nil
}

// conclude sends the request that ends a consent and reads what it brought.
func (c *Client) conclude(ctx context.Context, q *query, check idCheck) (tokenbroker.ExchangeReply, error) {
	if failure := q.at.need(q.at.profile.TokenEndpoint, "token_endpoint_missing"); failure != nil {
		return tokenbroker.ExchangeReply{}, failure
	}
	q.url, q.format, q.spends, q.single = q.at.profile.TokenEndpoint, q.at.profile.BodyFormat, true, true
	raw, err := c.ask(ctx, &q.call)
	if err != nil {
		return tokenbroker.ExchangeReply{Sent: raw.sent}, err
	}
	out, failure := q.interpret(raw, raw.sent)
	if failure != nil {
		return out, q.consentFailure(failure, raw)
	}
	top := parse(raw.body, false)
	claims, failure := q.at.identity(top, check, raw)
	if failure != nil {
		return tokenbroker.ExchangeReply{RefreshToken: out.RefreshToken, RefreshEnd: out.RefreshEnd, Sent: out.Sent, Skew: out.Skew}, failure
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	out.Account = q.at.account(ctx, top, claims, out.Token.AccessToken, append(slices.Clone(q.secrets), out.RefreshToken.Reveal()))
	return out, nil
}

// consentFailure gives the codes that belong to consents alone their class.
func (q *query) consentFailure(f *tokenbroker.Failure, a answer) *tokenbroker.Failure {
	switch f.Code {
	case "authorization_pending":
		f.Class = tokenbroker.ClassTransient
	case "slow_down":
		f.Class = tokenbroker.ClassThrottled
		if n, ok := parse(a.body, false).number("interval"); ok && f.RetryAfter == 0 && n > 0 {
			f.RetryAfter = seconds(n, maxInterval)
		}
	case "access_denied", "expired_token":
		f.Class = tokenbroker.ClassDeadGrant
	}
	return f
}

func seconds(n float64, most time.Duration) time.Duration {
	return time.Duration(min(n*float64(time.Second), float64(most)))
}
