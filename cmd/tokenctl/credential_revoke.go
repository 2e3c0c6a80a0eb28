package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) credentialRevoke() *cobra.Command {
	var req tokenbrokerv1.RevokeCredentialsRequest
	var dry, yes bool
	cmd := &cobra.Command{Use: "revoke [CREDENTIAL]", Short: "End grants at the provider: of one credential, or all of an OAuth client or provider", Args: atMost("CREDENTIAL"),
		ValidArgsFunction: c.credentialNames(1),
		Long: `Ends grants at the provider (RFC 7009), drops the tokens here, and tells subscribers at once. It shows the plan and asks first;
elsewhere than on a terminal it needs --yes. What does not get through to the provider is parked and tried again. The credentials
stay, and want a new consent. What is printed says until when tokens that were handed out may live.`,
		Example: `  tokenctl credential revoke example/drive --dry-run
  tokenctl credential revoke example/drive
  tokenctl credential revoke --client acme-jobs --yes`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		if len(args) == 1 {
			req.Credential = args[0]
		}
		n := 0
		for _, what := range []string{req.GetCredential(), req.GetOauthClient(), req.GetProvider()} {
			n += min(len(what), 1)
		}
		if n != 1 {
			return usagef("name one credential, or give one of --client and --provider")
		}
		return s.revoke(ctx, &req, dry, yes)
	})
	f := cmd.Flags()
	f.StringVar(&req.OauthClient, "client", "", "all credentials of this OAuth client that you may revoke")
	f.StringVar(&req.Provider, "provider", "", "all credentials of this provider that you may revoke")
	f.BoolVar(&dry, "dry-run", false, "show what would be revoked, and touch nothing")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.completeClient(cmd)
	c.completeProvider(cmd)
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (s *session) revoke(ctx context.Context, req *tokenbrokerv1.RevokeCredentialsRequest, dry, yes bool) error {
	if dry || !yes {
		req.ValidateOnly = true
		plan, err := call(ctx, s, s.creds.RevokeCredentials, req)
		if err != nil {
			return err
		}
		if dry || len(plan.GetRevocations()) == 0 {
			return s.showRevocations(plan)
		}
		if err := s.revocationRows(s.errs, plan.GetRevocations(), time.Now()); err != nil {
			return err
		}
		if err := s.confirm(ctx, false, "Revoke "+counted(len(plan.GetRevocations()), "credential")+"?"); err != nil {
			return err
		}
	}
	req.ValidateOnly = false
	done, err := call(ctx, s, s.creds.RevokeCredentials, req)
	if err != nil {
		return err
	}
	return errors.Join(s.showRevocations(done), unfinished(done.GetRevocations()))
}

func (s *session) showRevocations(m *tokenbrokerv1.RevokeCredentialsResponse) error {
	return s.emit(m, func(w io.Writer) error {
		if len(m.GetRevocations()) == 0 {
			return s.none("credentials that you may revoke")
		}
		return s.revocationRows(w, m.GetRevocations(), time.Now())
	})
}

func (s *session) revocationRows(w io.Writer, all []*tokenbrokerv1.Revocation, now time.Time) error {
	rows := make([][]string, 0, len(all))
	for _, r := range all {
		outcome := revocationWord(r.GetOutcome())
		if r.GetCode() != "" {
			outcome += " (" + r.GetCode() + ")"
		}
		rows = append(rows, []string{r.GetCredential(), outcome, both(r.GetTokensLiveUntil(), now, "none lives"), fmt.Sprint(r.GetSubscriberCount())})
	}
	return s.table(w, []string{"CREDENTIAL", "AT THE PROVIDER", "HANDED-OUT TOKENS LIVE UNTIL", "SUBSCRIBERS"}, rows)
}

func revocationWord(o tokenbrokerv1.Revocation_Outcome) string {
	return map[tokenbrokerv1.Revocation_Outcome]string{
		tokenbrokerv1.Revocation_OUTCOME_PLANNED:       "would be revoked",
		tokenbrokerv1.Revocation_OUTCOME_REVOKED:       "revoked",
		tokenbrokerv1.Revocation_OUTCOME_PARKED:        "not reached, tried again",
		tokenbrokerv1.Revocation_OUTCOME_NOT_SUPPORTED: "offers no revocation",
		tokenbrokerv1.Revocation_OUTCOME_REFUSED:       "refused",
	}[o]
}

// unfinished is what the exit status has to tell of a revocation: that the provider's side is not done.
func unfinished(all []*tokenbrokerv1.Revocation) error {
	count := map[tokenbrokerv1.Revocation_Outcome]int{}
	for _, r := range all {
		count[r.GetOutcome()]++
	}
	if n := count[tokenbrokerv1.Revocation_OUTCOME_REFUSED]; n > 0 {
		return &failure{exit: exitFix, what: fmt.Sprintf("the provider refused to revoke %d of %s; the broker has forgotten the tokens all the same", n, counted(len(all), "credential")),
			action: "end these grants in the provider's own console"}
	}
	if n := count[tokenbrokerv1.Revocation_OUTCOME_PARKED]; n > 0 {
		return &failure{exit: exitLater, what: fmt.Sprintf("not revoked at the provider yet: %d of %s", n, counted(len(all), "credential")),
			action: "wait; the broker goes on trying by itself"}
	}
	return nil
}

// counted is a number of things: "1 credential", "2 credentials".
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
