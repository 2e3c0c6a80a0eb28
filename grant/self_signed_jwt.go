package grant

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker"
)

// selfSignedJWT signs a JWT that Google's APIs take for an access token (AIP-4111). Nothing is sent.
func selfSignedJWT() grantKind {
	return grantKind{exact: func(pair) bool { return true }, mint: mintSelfSigned, check: checkSelfSigned}
}

func mintSelfSigned(_ context.Context, _ *Client, q *query, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
	now := time.Now()
	out := tokenbroker.ExchangeReply{Sent: now}
	key, ok := signingKey(r)
	switch {
	case !ok:
		return out, refuse("key_missing")
	case key.KeyID == "":
		return out, refuse("key_id_missing")
	case key.Algorithm != string(jose.RS256):
		return out, refuse("key_unusable")
	case r.Client.ClientID == "":
		return out, refuse("client_id_missing")
	case checkEndpointAudience(q.asked.Audience, len(q.asked.Scopes)) != nil:
		return out, refuse("invalid_target")
	}
	c := claims{"iss": r.Client.ClientID, "sub": r.Client.ClientID, "iat": now.Unix(), "exp": now.Unix() + 3600}
	if q.asked.Audience != "" {
		c["aud"] = q.asked.Audience
	} else {
		c["scope"] = strings.Join(q.asked.Scopes, " ")
	}
	text, failure := c.sign(key)
	if failure != nil {
		return out, failure
	}
	out.Token = &tokenbroker.Token{AccessToken: tokenbroker.NewSecret(text), Type: "Bearer", Scopes: q.asked.Scopes,
		Expiry: time.Unix(now.Unix()+3600, 0), Obtained: now}
	return out, nil
}

func checkSelfSigned(p pair) []error {
	problems := checkSigner(p, true)
	if p.cred.Subject != "" {
		problems = append(problems, invalid("spec.subject",
			"a self-signed JWT can't act for a user: Google takes delegation (sub) in jwt_bearer grants alone; use that, or leave the subject out"))
	}
	if p.client != nil && p.client.Auth != tokenbroker.AuthServiceAccount {
		problems = append(problems, invalid("spec.oauthClient", "a self-signed JWT goes with a client of auth method %s", tokenbroker.AuthServiceAccount))
	}
	return append(problems, tokenbroker.Invalid("spec.audience", checkEndpointAudience(p.cred.Audience, len(p.cred.Scopes))))
}

// checkEndpointAudience judges what a self-signed JWT is for: an API, or scopes, and not both.
func checkEndpointAudience(audience string, scopes int) error {
	u, err := url.Parse(audience)
	switch {
	case audience == "" && scopes == 0:
		return errors.New("a self-signed JWT needs the API that it is for, e.g. audience https://pubsub.googleapis.com/, or scopes")
	case audience == "":
		return nil
	case scopes > 0:
		return errors.New("a self-signed JWT has an audience or scopes, not both (AIP-4111); leave one out")
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !strings.HasSuffix(audience, "/"):
		return errors.New(`the audience of a self-signed JWT is the API's endpoint, an https URL that ends in "/", e.g. https://pubsub.googleapis.com/`)
	}
	return nil
}
