package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) consentCommand() *cobra.Command {
	cmd := c.group("consent", "See consents, accept the account of one that was given by link, or cancel one",
		c.consentList(), c.consentDescribe(), c.consentAccept(), c.consentCancel())
	cmd.Aliases = []string{"consents"}
	return cmd
}

func flowWord(f tokenbrokerv1.ConsentFlow) string {
	return map[tokenbrokerv1.ConsentFlow]string{
		tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LOOPBACK: "browser", tokenbrokerv1.ConsentFlow_CONSENT_FLOW_PASTE: "paste",
		tokenbrokerv1.ConsentFlow_CONSENT_FLOW_DEVICE: "device", tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LINK: "link",
	}[f]
}

func consentState(s tokenbrokerv1.ConsentState) string { return enum(s.String(), "CONSENT_STATE_") }

func (c *cli) consentList() *cobra.Command {
	var req tokenbrokerv1.ListConsentsRequest
	cmd := &cobra.Command{Use: "list", Short: "List consents that are open, or were so within a day", Args: takes(), Aliases: []string{"ls"}}
	cmd.RunE = c.with(func(ctx context.Context, s *session, _ []string) error {
		resp, err := call(ctx, s, s.consents.ListConsents, &req)
		if err != nil {
			return err
		}
		return s.emit(resp, func(w io.Writer) error {
			if len(resp.GetConsents()) == 0 {
				return s.none("consents")
			}
			return s.consentRows(w, resp.GetConsents(), time.Now())
		})
	})
	cmd.Flags().StringVar(&req.Credential, "credential", "", "only those of this credential")
	_ = cmd.RegisterFlagCompletionFunc("credential", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return c.credentialNames(1)(cmd, nil, begun)
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (s *session) consentRows(w io.Writer, all []*tokenbrokerv1.Consent, now time.Time) error {
	rows := make([][]string, 0, len(all))
	for _, c := range all {
		rows = append(rows, []string{c.GetConsentId(), c.GetCredential(), flowWord(c.GetFlow()), consentState(c.GetState()), or(c.GetAccount(), "-"),
			relative(c.GetCreateTime(), now), relative(c.GetExpireTime(), now)})
	}
	return s.table(w, []string{"ID", "CREDENTIAL", "WAY", "STATE", "ACCOUNT", "BEGUN", "EXPIRES"}, rows)
}

// consentHolder is a reply with a consent.
type consentHolder interface {
	GetConsent() *tokenbrokerv1.Consent
	proto.Message
}

func (s *session) showConsent(m consentHolder) error {
	return s.emit(m, func(w io.Writer) error { return describe(w, consentSections(m.GetConsent(), time.Now())) })
}

func (c *cli) consentDescribe() *cobra.Command {
	cmd := &cobra.Command{Use: "describe CONSENT", Short: "Show how a consent stands", Args: takes("CONSENT"), ValidArgsFunction: c.consentIDs(), Aliases: []string{"show"}}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.consents.GetConsent, &tokenbrokerv1.GetConsentRequest{ConsentId: args[0]})
		if err != nil {
			return err
		}
		return s.showConsent(resp)
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func consentSections(c *tokenbrokerv1.Consent, now time.Time) []section {
	state := consentState(c.GetState())
	if c.GetCode() != "" {
		state += " (" + c.GetCode() + ")"
	}
	rows := [][2]string{
		{"Credential", c.GetCredential()},
		{"State", state},
		{"Account", or(c.GetAccount(), "not known")},
		{"Expected", or(c.GetExpectedAccount(), "any")},
		{"Asked", list(c.GetScopes(), "the provider's default")},
		{"Granted", list(c.GetGrantedScopes(), "not known")},
		{"Missing", list(c.GetMissingScopes(), "none")},
		{"Way", flowWord(c.GetFlow())},
		{"Begun", both(c.GetCreateTime(), now, "-")},
		{"Begun by", c.GetBegunBy()},
		{"Expires", both(c.GetExpireTime(), now, "-")},
		{"Ended", both(c.GetEndTime(), now, "no")},
	}
	if c.GetAdvice() != "" {
		rows = append(rows, [2]string{"Advice", c.GetAdvice()})
	}
	if c.GetState() == tokenbrokerv1.ConsentState_CONSENT_STATE_AWAITING_ACCEPTANCE {
		id := word(c.GetConsentId())
		rows = append(rows, [2]string{"Is it the right account?", "tokenctl consent accept " + id + " --account " + word(c.GetAccount())},
			[2]string{"Is it not?", "tokenctl consent cancel " + id})
	}
	return []section{{"Consent " + c.GetConsentId(), rows}}
}

func (c *cli) consentAccept() *cobra.Command {
	var account string
	cmd := &cobra.Command{Use: "accept CONSENT", Short: "Take the account that consented by link for the right one", Args: takes("CONSENT"), ValidArgsFunction: c.consentIDs(),
		Long: `Takes the account that consented by link for the right one: the grant takes effect. --account says which one that is, as
"consent describe" shows it, so that nobody accepts one unseen; --account '' where the provider names none.`,
		Example: "  tokenctl consent accept 8f3k2 --account reports@corp.example"}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		if !cmd.Flags().Changed("account") {
			return usageError("say with --account which account it is to be", "tokenctl consent describe "+word(args[0]))
		}
		resp, err := call(ctx, s, s.consents.AcceptConsent, &tokenbrokerv1.AcceptConsentRequest{ConsentId: args[0], Account: account})
		if err != nil {
			return err
		}
		return s.connected(&ending{consent: resp.GetConsent(), cred: resp.GetCredential()})
	})
	cmd.Flags().StringVar(&account, "account", "", "the account that is accepted")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (c *cli) consentCancel() *cobra.Command {
	cmd := &cobra.Command{Use: "cancel CONSENT", Short: "End a consent; one that waits to be accepted is revoked at the provider", Args: takes("CONSENT"), ValidArgsFunction: c.consentIDs()}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.consents.CancelConsent, &tokenbrokerv1.CancelConsentRequest{ConsentId: args[0]})
		if err != nil {
			return err
		}
		return s.emit(resp, func(io.Writer) error {
			_, err := fmt.Fprintf(s.errs, "cancelled consent %s\n", clean(args[0]))
			return err
		})
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}
