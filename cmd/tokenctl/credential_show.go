package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) credentialList() *cobra.Command {
	var p pages
	var client string
	cmd := &cobra.Command{Use: "list", Short: "List the credentials that you may list", Args: takes(), Aliases: []string{"ls"}}
	cmd.RunE = c.with(func(ctx context.Context, s *session, _ []string) error {
		all, err := every(ctx, p, func(ctx context.Context, size int32, token string) ([]*tokenbrokerv1.Credential, string, error) {
			r, err := call(ctx, s, s.creds.ListCredentials, &tokenbrokerv1.ListCredentialsRequest{PageSize: size, PageToken: token})
			return r.GetCredentials(), r.GetNextPageToken(), err
		}, func(cred *tokenbrokerv1.Credential) bool {
			return client == "" || cred.GetSpec().GetOauthClient() == client
		})
		if err != nil {
			return err
		}
		return s.emit(&tokenbrokerv1.ListCredentialsResponse{Credentials: all}, func(w io.Writer) error {
			if len(all) == 0 {
				return s.none("credentials")
			}
			return s.credentialRows(w, all, time.Now())
		})
	})
	p.flags(cmd)
	cmd.Flags().StringVar(&client, "client", "", "only those that use this OAuth client")
	c.completeClient(cmd)
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// none says that a list is empty, where it is no data.
func (s *session) none(what string) error {
	_, err := fmt.Fprintf(s.errs, "no %s\n", what)
	return err
}

// pages says how much of a list to read, and in what pieces.
type pages struct {
	limit int
	size  int32
}

func (p *pages) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&p.limit, "limit", 0, "show so many at most (default: all)")
	cmd.Flags().Int32Var(&p.size, "page-size", 500, "how many to ask for at a time; all pages are read anyway")
}

// every reads all pages of a list, and keeps what is wanted.
func every[T any](ctx context.Context, p pages, page func(context.Context, int32, string) ([]T, string, error), wanted func(T) bool) ([]T, error) {
	if p.limit < 0 || p.size < 1 {
		return nil, usagef("--limit %d, --page-size %d: give more than 0", p.limit, p.size)
	}
	var all []T
	for token := ""; ; {
		items, next, err := page(ctx, p.size, token)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			if !wanted(item) {
				continue
			}
			if all = append(all, item); len(all) == p.limit {
				return all, nil
			}
		}
		if next == "" {
			return all, nil
		}
		if next == token {
			return nil, fmt.Errorf("the broker answered the same page twice")
		}
		token = next
	}
}

func (c *cli) credentialDescribe() *cobra.Command {
	cmd := &cobra.Command{Use: "describe CREDENTIAL", Short: "Show all that is known of a credential", Args: takes("CREDENTIAL"),
		ValidArgsFunction: c.credentialNames(1), Aliases: []string{"show"}}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.creds.GetCredential, &tokenbrokerv1.GetCredentialRequest{Credential: args[0]})
		if err != nil {
			return err
		}
		return s.emit(resp, func(w io.Writer) error { return describe(w, credentialSections(resp.GetCredential(), time.Now())) })
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func credentialSections(c *tokenbrokerv1.Credential, now time.Time) []section {
	spec, st := c.GetSpec(), c.GetStatus()
	state := stateWord(st.GetState())
	if st.GetCode() != "" {
		state += " (" + st.GetCode() + ")"
	}
	sections := []section{
		{"Credential " + c.GetCredential(), [][2]string{
			{"State", state},
			{"Since", both(st.GetStateTime(), now, "not known")},
			{"To do", actionWord(st.GetRecoveryAction())},
			{"Command", stateCommand(c)},
		}},
		{"Configuration", [][2]string{
			{"Provider", spec.GetProvider()},
			{"OAuth client", spec.GetOauthClient()},
			{"Grant", grantWord(spec.GetGrantType())},
			{"Scopes", list(spec.GetScopes(), "the provider's default")},
			{"Subject", or(spec.GetSubject(), "nobody in particular")},
			{"Audience", or(spec.GetAudience(), "none")},
			{"Owner", or(spec.GetOwner(), "-")},
			{"Labels", list(pairs(spec.GetLabels()), "-")},
		}},
		{"Access token", tokenRows(st, now)},
	}
	if spec.GetGrantType() == tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN {
		sections = append(sections, section{"Refresh token", refreshRows(st, now)})
	}
	return append(sections,
		section{"Use", [][2]string{
			{"Last use", both(st.GetLastUseTime(), now, "not since the broker keeps track")},
			{"Subscribers", fmt.Sprint(st.GetSubscriberCount())},
			{"Variants", fmt.Sprint(st.GetVariantCount())},
		}},
		section{"Record", [][2]string{
			{"Created", both(c.GetCreateTime(), now, "-")},
			{"Changed", both(c.GetUpdateTime(), now, "-")},
			{"ETag", or(c.GetEtag(), "-")},
			{"UID", or(c.GetUid(), "-")},
		}})
}

func tokenRows(st *tokenbrokerv1.CredentialStatus, now time.Time) [][2]string {
	if st.GetGeneration() == 0 {
		return [][2]string{{"Generation", "none that is valid"}, {"Next refresh", both(st.GetRefreshTime(), now, "when somebody asks")}}
	}
	return [][2]string{
		{"Generation", fmt.Sprint(st.GetGeneration())},
		{"Expires", both(st.GetExpireTime(), now, "-")},
		{"Next refresh", both(st.GetRefreshTime(), now, "when somebody asks")},
	}
}

func refreshRows(st *tokenbrokerv1.CredentialStatus, now time.Time) [][2]string {
	held := "no"
	if st.GetHasRefreshToken() {
		held = "yes"
	}
	return [][2]string{
		{"Held", held},
		{"Serial", fmt.Sprint(st.GetSerial())},
		{"Last used", both(st.GetRefreshTokenExerciseTime(), now, "-")},
		{"Expires", both(st.GetRefreshTokenExpireTime(), now, "not known, or never")},
	}
}

// stateCommand is the command that does something about a state.
func stateCommand(c *tokenbrokerv1.Credential) string {
	name := word(c.GetCredential())
	switch c.GetStatus().GetState() {
	case tokenbrokerv1.CredentialState_CREDENTIAL_STATE_REAUTHORIZE:
		return "tokenctl credential import " + name + " --refresh-token-stdin"
	case tokenbrokerv1.CredentialState_CREDENTIAL_STATE_DISABLED:
		return "tokenctl credential enable " + name
	case tokenbrokerv1.CredentialState_CREDENTIAL_STATE_MISCONFIGURED:
		return mend(c)
	default:
		return "-"
	}
}

// mend is the command that mends what the provider refuses, as its error code says (RFC 6749 §5.2).
func mend(c *tokenbrokerv1.Credential) string {
	switch c.GetStatus().GetCode() {
	case "invalid_client":
		return "tokenctl client secret add " + word(c.GetSpec().GetOauthClient()) + " --secret-stdin"
	case "invalid_scope":
		return "tokenctl credential update " + word(c.GetCredential()) + " --scope SCOPE"
	default:
		return "tokenctl client describe " + word(c.GetSpec().GetOauthClient())
	}
}

func or(text, absent string) string {
	if text == "" {
		return absent
	}
	return text
}
