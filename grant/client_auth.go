package grant

import (
	"encoding/base64"
	"net/url"
	"slices"

	"github.com/tokenbroker/tokenbroker"
)

// identify adds a client's identity to a call in the one way that is configured (RFC 6749 §2.3).
func (q *call) identify(client tokenbroker.OAuthClient, secret tokenbroker.ClientSecret) *tokenbroker.Failure {
	id, value := client.ClientID, secret.Secret
	switch {
	case id == "":
		return refuse("client_id_missing")
	case !slices.Contains(q.at.profile.AuthMethods, client.Auth):
		return refuse("auth_method_not_allowed")
	case !client.Auth.Public() && value.IsZero():
		return refuse("client_secret_missing")
	}
	switch client.Auth {
	case tokenbroker.AuthClientSecretBasic:
		q.header.Set("Authorization", "Basic "+q.basic(id, value))
	case tokenbroker.AuthClientSecretPost:
		q.form.Set("client_id", id)
		q.form.Set("client_secret", value.Reveal())
	case tokenbroker.AuthNone:
		q.form.Set("client_id", id)
		return nil
	}
	q.secrets = append(q.secrets, value.Reveal())
	return nil
}

func (q *call) basic(id string, secret tokenbroker.Secret) string {
	encode := url.QueryEscape // application/x-www-form-urlencoded, RFC 6749 appendix B
	if raw := q.at.profile.RawBasic; raw != nil && *raw {
		encode = func(s string) string { return s }
	}
	return base64.StdEncoding.EncodeToString([]byte(encode(id) + ":" + encode(secret.Reveal())))
}
