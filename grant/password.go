package grant

import (
	"github.com/tokenbroker/tokenbroker"
)

// password asks by RFC 6749 §4.3, where a profile says that the provider has nothing else (RFC 9700 §2.4). Once the reply brought a
// refresh token, that is used in place of the password.
func password() grantKind {
	k := grantKind{is: tokenbroker.GrantPassword, wire: "password", public: true, subjects: true, check: checkPassword}
	k.fill = func(q *query, r tokenbroker.ExchangeRequest) *tokenbroker.Failure {
		switch {
		case q.asked.Subject != r.Credential.Subject:
			return refuse("subject_not_supported") // it is the user whose password this is
		case r.Holds == tokenbroker.HoldsRefreshToken && !r.RefreshToken.IsZero():
			q.askAs(refreshToken())
			return fillRefreshToken(q, r)
		case r.RefreshToken.IsZero() || r.Holds != tokenbroker.HoldsPassword:
			return refuse("password_missing")
		case r.Credential.Subject == "":
			return refuse("username_missing")
		}
		q.form.Set("username", r.Credential.Subject)
		q.form.Set("password", r.RefreshToken.Reveal())
		q.secrets = append(q.secrets, r.RefreshToken.Reveal())
		q.askScopes()
		return nil
	}
	return k
}

func checkPassword(p pair) []error {
	if p.cred.Subject != "" {
		return nil
	}
	return []error{invalid("spec.subject", "a password grant needs the user's name; write it as subject")}
}
