package main

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) credentialCheck() *cobra.Command {
	var req tokenbrokerv1.CheckCredentialRequest
	cmd := &cobra.Command{Use: "check CREDENTIAL", Short: "Judge the current token as a resource server would", Args: takes("CREDENTIAL"), ValidArgsFunction: c.credentialNames(1),
		Long: `Judges the current access token as a resource server would: it asks the provider (RFC 7662), else reads the token as a JWT against the
provider's keys, else makes the cheap test call of the provider's profile. The token is not shown. The exit status is 0 if it would be
accepted. Where the provider offers no such way, the token passes if it has not expired and no job has reported a 401 of it.`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		req.Credential = args[0]
		resp, err := call(ctx, s, s.creds.CheckCredential, &req)
		if err != nil {
			return err
		}
		shown := s.emit(resp, func(w io.Writer) error { return describe(w, verdict(resp, time.Now())) })
		return errors.Join(shown, inactive(resp))
	})
	f := cmd.Flags()
	f.StringArrayVar(&req.Scopes, "scope", nil, "a scope that the token is asked for with; repeatable (default: the credential's own)")
	f.StringVar(&req.Subject, "subject", "", "whom the token is to act for (default: the credential's own)")
	f.StringVar(&req.Audience, "audience", "", "whom the token is for (default: the credential's own)")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func verdict(r *tokenbrokerv1.CheckCredentialResponse, now time.Time) []section {
	word := "accepted"
	switch {
	case !r.GetActive():
		word = "refused (" + or(r.GetCode(), "inactive") + ")"
	case r.GetMethod() == tokenbrokerv1.CheckCredentialResponse_METHOD_NONE:
		word = "not expired, and nobody has reported a 401"
	}
	method := map[tokenbrokerv1.CheckCredentialResponse_Method]string{
		tokenbrokerv1.CheckCredentialResponse_METHOD_INTROSPECTION: "introspection at the provider (RFC 7662)",
		tokenbrokerv1.CheckCredentialResponse_METHOD_JWT:           "as a JWT, against the provider's keys",
		tokenbrokerv1.CheckCredentialResponse_METHOD_TEST_CALL:     "a test call to the provider",
		tokenbrokerv1.CheckCredentialResponse_METHOD_NONE:          "what the broker knows: the provider offers no way to ask",
	}[r.GetMethod()]
	skew := "none that matters, or not known"
	if d := r.GetClockSkew().AsDuration(); d != 0 {
		skew = skewWords(d)
	}
	return []section{{"Token of " + r.GetCredential(), [][2]string{
		{"Verdict", word},
		{"Judged by", or(method, "a way that this version does not know")},
		{"Generation", strconv.FormatUint(r.GetGeneration(), 10)},
		{"Expires", both(r.GetExpireTime(), now, "not known")},
		{"At the provider", both(r.GetProviderExpireTime(), now, "it does not say")},
		{"Scopes", list(r.GetScopes(), "not known")},
		{"Missing", list(r.GetMissingScopes(), "none")},
		{"Audience", list(r.GetAudience(), "not known")},
		{"Account", or(r.GetAccount(), "not known")},
		{"Clock", skew},
	}}}
}

// skewWords says how the broker's clock differs from the provider's.
func skewWords(d time.Duration) string {
	if d < 0 {
		return "the broker's is " + round(-d) + " behind the provider's"
	}
	return "the broker's is " + round(d) + " ahead of the provider's"
}

// inactive is a verdict that a resource server would refuse the token. What would help depends on why.
func inactive(r *tokenbrokerv1.CheckCredentialResponse) error {
	if r.GetActive() {
		return nil
	}
	f := &failure{exit: exitFix, what: "credential " + r.GetCredential() + ": a resource server would refuse its token", reason: r.GetCode(),
		action: "fetch another token; if that is refused, too, correct the credential or its provider", do: "tokenctl credential refresh " + word(r.GetCredential())}
	code := r.GetCode()
	switch {
	case strings.HasPrefix(code, "http_5"), code == "http_429", code == "timeout":
		f.exit, f.action, f.do = exitLater, "try again later: the provider did not judge it", "tokenctl credential check "+word(r.GetCredential())
	case code == "wrong_audience", code == "http_403":
		f.action, f.do = "correct audience and scopes of the credential", "tokenctl credential describe "+word(r.GetCredential())
	case code == "inactive", code == "revoked", code == "reported_401":
		f.exit, f.action = exitReauthorize, "fetch another token; if that fails, a person has to consent again"
	}
	return f
}
