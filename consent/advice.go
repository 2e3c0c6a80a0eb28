package consent

import "github.com/tokenbroker/tokenbroker"

// advices say what to do about a code. A code that is not here is the provider's.
var advices = map[string]string{
	codeMismatch:            "consent with the account that is expected, or begin anew and say that another one takes its place",
	codeUnnamed:             "ask for a scope with which the provider says whose account it is (often openid or email), or expect none",
	codeInterrupted:         "the broker was stopped while it redeemed the code; begin another consent",
	codeGone:                "the credential was deleted meanwhile",
	codeNoRefresh:           "the provider gave no refresh token, so it works until the access token expires; consent anew with the scope or parameter that asks for one",
	codeStale:               "what was granted is too old by now; begin another consent",
	"access_denied":         "the person, or a rule of the provider, said no; ask them, or an administrator there",
	"invalid_client":        "the provider refuses the OAuth client; correct its id or secret, then begin another consent",
	"invalid_grant":         "the code was too old or used; begin another consent",
	"redirect_uri_mismatch": "register the redirect URI of the consent at the provider",
	"invalid_scope":         "the provider does not know a scope, or this client may not have it",
	"expired_token":         "nobody typed the code in in time; begin another consent",
	"no_token":              "the provider's answer held no token; look at its profile",
}

// advice is what to do about how a consent stands; "" if all is well.
func advice(c tokenbroker.Consent) string {
	if text := advices[c.Code]; text != "" {
		return text
	}
	switch {
	case c.Code != "":
		return "the provider's error code says why; begin another consent once it is mended"
	case c.State == tokenbroker.ConsentExpired:
		return "begin another consent"
	case c.State == tokenbroker.ConsentAwaiting:
		return "accept the account if it is the right one, or cancel the consent"
	case len(c.Missing) > 0:
		return "not all scopes were granted; consent again and grant them, or ask for fewer"
	}
	return ""
}
