package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) policyExplain() *cobra.Command {
	var req tokenbrokerv1.ExplainRequest
	cmd := &cobra.Command{Use: "explain", Short: "Say what the policy in force decides, and why", Args: takes(),
		Long: `Asks the broker what it would decide about a request of any identity, and shows how far each rule came that names the
identity. You need policy.explain on the credential. What is left out of scopes, subject and audience is the credential's own:
ask once for each variant that a worker uses. Nothing is handed out and nothing counts as used. The exit status is 0
if the request would be allowed and 4 if not.`,
		Example: `  tokenctl policy explain --identity spiffe://example.org/job/reports --action token.get --credential example/reports
  tokenctl policy explain --identity spiffe://example.org/operator/ann --action oauth_client.update --client acme-jobs`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, _ []string) error {
		resp, err := call(ctx, s, s.policies.Explain, &req)
		if err != nil {
			return err
		}
		return errors.Join(s.emit(resp, func(w io.Writer) error { return s.explained(w, &req, resp) }), deniedBy(resp))
	})
	f := cmd.Flags()
	f.StringVar(&req.Identity, "identity", "", "whose request: a SPIFFE ID, or dns: and a name")
	f.StringVar(&req.Action, "action", "", "what it wants to do, in the words of the policy")
	f.StringVar(&req.Credential, "credential", "", "on which credential")
	f.StringVar(&req.OauthClient, "client", "", "on which OAuth client")
	f.StringArrayVar(&req.Scopes, "scope", nil, "a scope that it asks for; repeatable (default: the credential's own)")
	f.StringVar(&req.Subject, "subject", "", "subject that it asks for (default: the credential's own)")
	f.StringVar(&req.Audience, "audience", "", "audience that it asks for (default: the credential's own)")
	for _, name := range []string{"identity", "action"} {
		_ = cmd.MarkFlagRequired(name)
	}
	complete(cmd, "action", policyActions()...)
	_ = cmd.RegisterFlagCompletionFunc("credential", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return c.credentialNames(1)(cmd, nil, begun)
	})
	c.completeClient(cmd)
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// policyActions are the actions of the policy.
func policyActions() (all []string) {
	for _, a := range policy.Actions() {
		all = append(all, string(a))
	}
	return all
}

// judgedVariant says which variant of the credential a decision is about; "" if the action knows none. Another one of the same credential may
// be judged otherwise.
func judgedVariant(req *tokenbrokerv1.ExplainRequest) string {
	if req.GetAction() != string(policy.CredentialCheck) && !strings.HasPrefix(req.GetAction(), "token.") {
		return ""
	}
	if len(req.GetScopes()) == 0 && req.GetSubject() == "" && req.GetAudience() == "" {
		return "the credential's own, and no other: --scope, --subject and --audience name one"
	}
	scopes := "its own"
	if len(req.GetScopes()) > 0 {
		scopes = "those given"
	}
	return fmt.Sprintf("one with scopes %s, subject %s, audience %s", scopes, cmp.Or(req.GetSubject(), "its own"), cmp.Or(req.GetAudience(), "its own"))
}

// explained shows a decision, and how far each rule came.
func (s *session) explained(w io.Writer, req *tokenbrokerv1.ExplainRequest, r *tokenbrokerv1.ExplainResponse) error {
	word := "denied (" + r.GetReason() + ")"
	if r.GetAllowed() {
		word = "allowed" + modeWord(r.GetMode())
	}
	rows := [][2]string{{"Decision", word}, {"Rule", or(r.GetRule(), "none")}}
	if r.GetExpireTime() != nil {
		rows = append(rows, [2]string{"Until", both(r.GetExpireTime(), time.Now(), "-")})
	}
	if v := judgedVariant(req); v != "" {
		rows = append(rows, [2]string{"Variant", v})
	}
	rows = append(rows, [2]string{"Scopes", list(r.GetScopes(), "none")}, [2]string{"Advice", r.GetAdvice()}, [2]string{"Policy", r.GetPolicyRevision()})
	if err := describe(w, []section{{req.GetAction() + " by " + req.GetIdentity(), rows}}); err != nil {
		return err
	}
	if len(r.GetVerdicts()) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	table := make([][]string, 0, len(r.GetVerdicts()))
	for _, v := range r.GetVerdicts() {
		says := "allows it"
		if v.GetReason() != "" {
			says = "not its " + v.GetReason()
		}
		if v.GetReason() == "expired" {
			says = "its date is over"
		}
		if v.GetDeniedScope() != "" {
			says += " " + v.GetDeniedScope()
		}
		table = append(table, []string{v.GetRule(), says + modeWord(v.GetMode())})
	}
	return s.table(w, []string{"RULE", "VERDICT"}, table)
}

func modeWord(m tokenbrokerv1.PolicyMode) string {
	if m == tokenbrokerv1.PolicyMode_POLICY_MODE_AUDIT {
		return mode(policy.ModeAudit)
	}
	return ""
}

// deniedBy has the exit status say that the request would be denied.
func deniedBy(r *tokenbrokerv1.ExplainResponse) error {
	if r.GetAllowed() {
		return nil
	}
	return &failure{exit: exitDenied, what: "the policy in force denies it"}
}
