package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) credentialUsers() *cobra.Command {
	cmd := &cobra.Command{Use: "users CREDENTIAL", Short: "Show who may use a credential, and who did", Args: takes("CREDENTIAL"), ValidArgsFunction: c.credentialNames(1),
		Long: `Shows who may use a credential by the policy in force, rule by rule, and who was given a token of it, the latest first. Uses
are counted to the minute, of the 1,000 identities that used it last; a crash of the broker loses the last minute. The audit
log has all of them.`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.creds.ListCredentialUsers, &tokenbrokerv1.ListCredentialUsersRequest{Credential: args[0]})
		if err != nil {
			return err
		}
		return s.emit(resp, func(w io.Writer) error { return s.users(w, resp, time.Now()) })
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// users shows who may, and who did.
func (s *session) users(w io.Writer, r *tokenbrokerv1.ListCredentialUsersResponse, now time.Time) error {
	if _, err := fmt.Fprintf(w, "May use it, by policy %s\n", clean(r.GetPolicyRevision())); err != nil {
		return err
	}
	var may [][]string
	for _, g := range r.GetMay() {
		for _, identity := range g.GetIdentities() {
			may = append(may, []string{identity, list(g.GetActions(), "-"), list(g.GetScopes(), "its own"), list(g.GetSubjects(), "its own"),
				list(g.GetAudiences(), "its own"), g.GetRule() + ends(g)})
		}
	}
	if err := s.rowsOr(w, "nobody", []string{"IDENTITY", "ACTIONS", "SCOPES", "SUBJECTS", "AUDIENCES", "RULE"}, may); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "\nWas given a token, since %s\n", both(r.GetUsageSince(), now, "nobody counts")); err != nil {
		return err
	}
	var did [][]string
	for _, u := range r.GetDid() {
		did = append(did, []string{u.GetIdentity(), relative(u.GetFirstTime(), now), relative(u.GetLastTime(), now), u.GetRule(), yesNo(u.GetAllowed()), yesNo(u.GetSubscribed())})
	}
	return s.rowsOr(w, "nobody", []string{"IDENTITY", "FIRST", "LAST", "RULE", "STILL MAY", "SUBSCRIBES"}, did)
}

// rowsOr is a table, or a word where it would be empty.
func (s *session) rowsOr(w io.Writer, none string, header []string, rows [][]string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, none)
		return err
	}
	return s.table(w, header, rows)
}

// ends is said of a rule in audit mode.
func ends(g *tokenbrokerv1.CredentialGrantee) string {
	if g.GetAuditModeExpireTime() == nil {
		return ""
	}
	return " (audit mode until " + stamp(g.GetAuditModeExpireTime().AsTime()) + ")"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
