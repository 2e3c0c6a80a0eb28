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

func (c *cli) credentialCommand() *cobra.Command {
	cmd := c.group("credential", "Keep credentials: create, list, describe, check, update, delete, disable, enable, refresh, import, revoke, users",
		c.credentialCreate(), c.credentialList(), c.credentialDescribe(), c.credentialUpdate(), c.credentialDelete(),
		c.credentialDisable(), c.credentialEnable(), c.credentialRefresh(), c.credentialImport(), c.credentialCheck(), c.credentialRevoke(),
		c.credentialUsers())
	cmd.Aliases = []string{"credentials", "cred"}
	return cmd
}

// credentialReply is a reply with a credential.
type credentialReply interface {
	GetCredential() *tokenbrokerv1.Credential
	proto.Message
}

// stands prints a reply with a credential: one row, for people.
func (s *session) stands(m credentialReply) error {
	return s.emit(m, func(w io.Writer) error {
		return s.credentialRows(w, []*tokenbrokerv1.Credential{m.GetCredential()}, time.Now())
	})
}

func (s *session) credentialRows(w io.Writer, all []*tokenbrokerv1.Credential, now time.Time) error {
	rows := make([][]string, 0, len(all))
	for _, cred := range all {
		st := cred.GetStatus()
		rows = append(rows, []string{cred.GetCredential(), stateWord(st.GetState()), actionWord(st.GetRecoveryAction()), expires(st, now),
			relative(st.GetRefreshTime(), now), fmt.Sprint(st.GetSubscriberCount()), relative(st.GetLastUseTime(), now)})
	}
	return s.table(w, []string{"NAME", "STATE", "TO DO", "EXPIRES", "REFRESH", "SUBSCRIBERS", "LAST USE"}, rows)
}

// expires is when a token ends, marked where that is a guess.
func expires(st *tokenbrokerv1.CredentialStatus, now time.Time) string {
	if st.GetExpireTimeEstimated() {
		return relative(st.GetExpireTime(), now) + "?"
	}
	return relative(st.GetExpireTime(), now)
}

func stateWord(s tokenbrokerv1.CredentialState) string { return enum(s.String(), "CREDENTIAL_STATE_") }

// actionWord is what to do about a state, in a column.
func actionWord(a tokenbrokerv1.RecoveryAction) string {
	switch a {
	case tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_NONE, tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_UNSPECIFIED:
		return "-"
	case tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_RETRY:
		return "wait"
	case tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_REAUTHORIZE:
		return "reauthorize"
	case tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_FIX_CONFIGURATION:
		return "fix configuration"
	case tokenbrokerv1.RecoveryAction_RECOVERY_ACTION_ASK_OPERATOR:
		return "operator"
	}
	return enum(a.String(), "RECOVERY_ACTION_")
}

// onCredential is a command that does one thing to a credential and shows how it stands then.
func (c *cli) onCredential(verb, short, long string, do func(ctx context.Context, s *session, name string) (credentialReply, error)) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " CREDENTIAL", Short: short, Long: long, Args: takes("CREDENTIAL"), ValidArgsFunction: c.credentialNames(1)}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := do(ctx, s, args[0])
		if err != nil {
			return err
		}
		return s.stands(resp)
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (c *cli) credentialDisable() *cobra.Command {
	return c.onCredential("disable", "Stop handing out and fetching tokens, and keep the grant", "",
		func(ctx context.Context, s *session, name string) (credentialReply, error) {
			return call(ctx, s, s.creds.DisableCredential, &tokenbrokerv1.DisableCredentialRequest{Credential: name})
		})
}

func (c *cli) credentialEnable() *cobra.Command {
	return c.onCredential("enable", "Undo disable", "",
		func(ctx context.Context, s *session, name string) (credentialReply, error) {
			return call(ctx, s, s.creds.EnableCredential, &tokenbrokerv1.EnableCredentialRequest{Credential: name})
		})
}

func (c *cli) credentialRefresh() *cobra.Command {
	return c.onCredential("refresh", "Fetch a token now, to see whether it works",
		`Fetches a token now, whatever the life of the present one, and waits for it: the way to try a credential after something was
mended. The exit status says how it went. The provider's floor interval holds.`,
		func(ctx context.Context, s *session, name string) (credentialReply, error) {
			return call(ctx, s, s.creds.RefreshCredential, &tokenbrokerv1.RefreshCredentialRequest{Credential: name})
		})
}

func (c *cli) credentialDelete() *cobra.Command {
	return c.deletion("CREDENTIAL", c.credentialNames(1), "Remove a credential, its refresh token and its tokens",
		`Removes a credential with its refresh token and its tokens; they can't be brought back. Tokens that were handed out live until
the provider ends them.`,
		"credential %s, its refresh token and its tokens", func(ctx context.Context, s *session, name, etag string) (proto.Message, error) {
			return call(ctx, s, s.creds.DeleteCredential, &tokenbrokerv1.DeleteCredentialRequest{Credential: name, Etag: etag})
		})
}

// deletion is a command that deletes what its argument names. It asks first.
func (c *cli) deletion(arg string, names completer, short, long, what string,
	do func(ctx context.Context, s *session, name, etag string) (proto.Message, error)) *cobra.Command {
	var etag string
	var yes bool
	cmd := &cobra.Command{Use: "delete " + arg, Short: short, Args: takes(arg), ValidArgsFunction: names,
		Long: long + " It asks first on a terminal; elsewhere it needs --yes."}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		if err := s.confirm(ctx, yes, fmt.Sprintf("Delete "+what+"?", args[0])); err != nil {
			return err
		}
		resp, err := do(ctx, s, args[0], etag)
		if err != nil {
			return err
		}
		return s.emit(resp, func(io.Writer) error { // there is nothing to print in a table
			_, err := fmt.Fprintf(s.errs, "deleted "+what+"\n", clean(args[0]))
			return err
		})
	})
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVar(&etag, "etag", "", "delete it only if this is still its etag")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}
