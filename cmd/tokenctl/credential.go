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
	cmd := c.group("credential", "Keep credentials: create, list, describe, update, delete, disable, enable, refresh, import",
		c.credentialCreate(), c.credentialList(), c.credentialDescribe(), c.credentialUpdate(), c.credentialDelete(),
		c.credentialDisable(), c.credentialEnable(), c.credentialRefresh(), c.credentialImport())
	cmd.Aliases = []string{"credentials", "cred"}
	return cmd
}

// holder is a reply with a credential.
type holder interface {
	GetCredential() *tokenbrokerv1.Credential
}

// stands prints a reply with a credential: one row, for people.
func (s *session) stands(m interface {
	holder
	proto.Message
}) error {
	return s.emit(m, func(w io.Writer) error {
		return s.credentialRows(w, []*tokenbrokerv1.Credential{m.GetCredential()}, time.Now())
	})
}

func (s *session) credentialRows(w io.Writer, all []*tokenbrokerv1.Credential, now time.Time) error {
	rows := make([][]string, 0, len(all))
	for _, cred := range all {
		st := cred.GetStatus()
		rows = append(rows, []string{cred.GetCredential(), stateWord(st.GetState()), actionWord(st.GetRecoveryAction()), relative(st.GetExpireTime(), now),
			relative(st.GetRefreshTime(), now), fmt.Sprint(st.GetSubscriberCount()), relative(st.GetLastUseTime(), now)})
	}
	return s.table(w, []string{"NAME", "STATE", "TO DO", "EXPIRES", "REFRESH", "SUBSCRIBERS", "LAST USE"}, rows)
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

func (c *cli) credentialDisable() *cobra.Command {
	cmd := &cobra.Command{Use: "disable CREDENTIAL", Short: "Stop handing out and fetching tokens, and keep the grant",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.credentialNames(1)}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.creds.DisableCredential, &tokenbrokerv1.DisableCredentialRequest{Credential: args[0]})
		if err != nil {
			return err
		}
		return s.stands(resp)
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (c *cli) credentialEnable() *cobra.Command {
	cmd := &cobra.Command{Use: "enable CREDENTIAL", Short: "Undo disable", Args: cobra.ExactArgs(1), ValidArgsFunction: c.credentialNames(1)}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.creds.EnableCredential, &tokenbrokerv1.EnableCredentialRequest{Credential: args[0]})
		if err != nil {
			return err
		}
		return s.stands(resp)
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (c *cli) credentialRefresh() *cobra.Command {
	cmd := &cobra.Command{Use: "refresh CREDENTIAL", Short: "Fetch a token now, to see whether it works", Args: cobra.ExactArgs(1), ValidArgsFunction: c.credentialNames(1),
		Long: `Fetches a token now, whatever the life of the present one, and waits for it: the way to try a credential after something was
mended. The exit status says how it went. The provider's floor interval holds.`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.creds.RefreshCredential, &tokenbrokerv1.RefreshCredentialRequest{Credential: args[0]})
		if err != nil {
			return err
		}
		return s.stands(resp)
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (c *cli) credentialDelete() *cobra.Command {
	var req tokenbrokerv1.DeleteCredentialRequest
	var yes bool
	cmd := &cobra.Command{Use: "delete CREDENTIAL", Short: "Remove a credential, its refresh token and its tokens", Args: cobra.ExactArgs(1),
		ValidArgsFunction: c.credentialNames(1),
		Long: `Removes a credential with its refresh token and its tokens; they can't be brought back. Tokens that were handed out live until
the provider ends them. It asks first on a terminal; elsewhere it needs --yes.`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		req.Credential = args[0]
		if err := s.confirm(ctx, yes, fmt.Sprintf("Delete credential %s, its refresh token and its tokens?", args[0])); err != nil {
			return err
		}
		resp, err := call(ctx, s, s.creds.DeleteCredential, &req)
		if err != nil {
			return err
		}
		return s.gone(resp, "credential "+args[0])
	})
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVar(&req.Etag, "etag", "", "delete it only if this is still its etag")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// gone tells of a delete. There is nothing to print in a table.
func (s *session) gone(m proto.Message, what string) error {
	return s.emit(m, func(io.Writer) error {
		_, err := fmt.Fprintf(s.errs, "deleted %s\n", what)
		return err
	})
}

func (c *cli) credentialImport() *cobra.Command {
	token := secretFlags{name: "refresh-token"}
	var expires string
	cmd := &cobra.Command{Use: "import CREDENTIAL", Short: "Bring a new refresh token for a credential", Args: cobra.ExactArgs(1), ValidArgsFunction: c.credentialNames(1),
		Long: `Stores a new refresh token for a credential that exists: the way back from REAUTHORIZE. Its name, rules and history stay, and
it is tried at once. The refresh token comes from standard input, a file, or a prompt without echo on a terminal.`,
		Example: `  tokenctl credential import example/drive                              # asks for it
  obtain-consent | tokenctl credential import example/drive --refresh-token-stdin`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		end, err := parseTime("--refresh-token-expires", expires)
		if err != nil {
			return err
		}
		secret, err := token.read(ctx, s.cli)
		if err != nil {
			return err
		}
		resp, err := call(ctx, s, s.creds.ImportRefreshToken, &tokenbrokerv1.ImportRefreshTokenRequest{Credential: args[0],
			RefreshToken: secret.Reveal(), RefreshTokenExpireTime: end})
		if err != nil {
			return err
		}
		return s.stands(resp)
	})
	token.add(cmd)
	cmd.Flags().StringVar(&expires, "refresh-token-expires", "", "when it dies, as `time` in RFC 3339, if known")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}
