package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
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

// pageSize is how many items to ask for at a time.
const pageSize = 500

// pages says how much of a list to read, and in what pieces.
type pages struct {
	limit positive
	size  int32
}

// positive is a flag for a number above 0; 0 = not given.
type positive int

// Set implements pflag.Value.
func (p *positive) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err == nil && n < 1 {
		err = strconv.ErrRange
	}
	*p = positive(n)
	return err
}

// String implements pflag.Value.
func (p *positive) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.Itoa(int(*p))
}

// Type implements pflag.Value.
func (p *positive) Type() string { return "number above 0" }

func (p *pages) flags(cmd *cobra.Command) {
	cmd.Flags().Var(&p.limit, "limit", "show so many at most (default: all)")
	cmd.Flags().Int32Var(&p.size, "page-size", pageSize, "how many to ask for at a time; all pages are read anyway")
}

// every reads all pages of a list, and keeps what is wanted.
func every[T any](ctx context.Context, p pages, page func(context.Context, int32, string) ([]T, string, error), wanted func(T) bool) ([]T, error) {
	if p.size < 1 {
		return nil, usagef("--page-size: give 1 or more")
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
			if all = append(all, item); len(all) == int(p.limit) {
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
	if why := list(slices.DeleteFunc([]string{st.GetCode(), st.GetCause()}, func(s string) bool { return s == "" }), ""); why != "" {
		state += " (" + why + ")"
	}
	stands := [][2]string{
		{"State", state},
		{"Since", both(st.GetStateTime(), now, "not known")},
		{"To do", actionWord(st.GetRecoveryAction())},
		{"Command", stateCommand(c)},
	}
	if st.GetAdvice() != "" {
		stands = append(stands, [2]string{"Advice", st.GetAdvice()})
	}
	if d := st.GetClockSkew().AsDuration(); d != 0 {
		stands = append(stands, [2]string{"Clock", skewWords(d)})
	}
	if st.GetRevocationPending() {
		stands = append(stands, [2]string{"Revocation", "has not got through to the provider yet; it is tried again"})
	}
	sections := []section{
		{"Credential " + c.GetCredential(), stands},
		{"Configuration", configurationRows(spec)},
		{"Access token", tokenRows(st, now)},
	}
	if lives := grantRows(c, now); len(lives) > 0 {
		sections = append(sections, section{"Grant", lives})
	}
	if refreshes(spec.GetGrantType()) {
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

func configurationRows(spec *tokenbrokerv1.CredentialSpec) [][2]string {
	rows := [][2]string{
		{"Provider", spec.GetProvider()},
		{"OAuth client", or(spec.GetOauthClient(), "none")},
		{"Grant", grantWord(spec.GetGrantType())},
		{"Scopes", list(spec.GetScopes(), "the provider's default")},
		{"Subject", or(spec.GetSubject(), "nobody in particular")},
		{"Audience", or(spec.GetAudience(), "none")},
	}
	for _, row := range [][2]string{{"Resources", list(spec.GetResources(), "")}, {"Parameters", list(pairs(spec.GetParameters()), "")}, {"Source", spec.GetSource()}} {
		if row[1] != "" {
			rows = append(rows, row)
		}
	}
	if allowsExtra(spec) {
		rows = append(rows, [2]string{"Extra scopes", "allowed: the provider may give more than was asked for"})
	}
	return append(rows, [2]string{"Owner", or(spec.GetOwner(), "-")}, [2]string{"Labels", list(pairs(spec.GetLabels()), "-")})
}

// grantRows are what is known of a grant that somebody gave: whose account it is, and what it allows.
func grantRows(c *tokenbrokerv1.Credential, now time.Time) (rows [][2]string) {
	st := c.GetStatus()
	if consents(c.GetSpec().GetGrantType()) || st.GetAccount() != "" {
		rows = append(rows, [2]string{"Account", or(st.GetAccount(), "not known")}, [2]string{"Consented", both(st.GetConsentTime(), now, "nobody has")})
	}
	if len(st.GetGrantedScopes()) > 0 {
		rows = append(rows, [2]string{"Granted", list(st.GetGrantedScopes(), "")}, [2]string{"Missing", list(st.GetMissingScopes(), "none")})
		if extra := extraScopes(c); len(extra) > 0 {
			rows = append(rows, [2]string{"Extra", list(extra, "")})
		}
	}
	if st.GetHolds() != "" {
		rows = append(rows, [2]string{"Lives on", strings.ReplaceAll(st.GetHolds(), "_", " ")})
	}
	return rows
}

// extraScopes are those that the grant has besides the credential's own. Where it has none, the provider decides, and all are its own.
func extraScopes(c *tokenbrokerv1.Credential) []string {
	own := c.GetSpec().GetScopes()
	if len(own) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.GetStatus().GetGrantedScopes()), func(s string) bool { return slices.Contains(own, s) })
}

// refreshes reports whether a grant lives on a refresh token, at least in the end.
func refreshes(g tokenbrokerv1.GrantType) bool {
	return consents(g) || g == tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN || g == tokenbrokerv1.GrantType_GRANT_TYPE_PASSWORD
}

func tokenRows(st *tokenbrokerv1.CredentialStatus, now time.Time) [][2]string {
	if st.GetGeneration() == 0 {
		return [][2]string{{"Generation", "none that is valid"}, {"Next refresh", both(st.GetRefreshTime(), now, "when somebody asks")}}
	}
	return [][2]string{
		{"Generation", fmt.Sprint(st.GetGeneration())},
		{"Expires", both(st.GetExpireTime(), now, "-") + guess(st)},
		{"Next refresh", both(st.GetRefreshTime(), now, "when somebody asks")},
	}
}

func refreshRows(st *tokenbrokerv1.CredentialStatus, now time.Time) [][2]string {
	held, rotates := "no", "not seen"
	if st.GetHasRefreshToken() {
		held = "yes"
	}
	if st.GetRotationSeen() {
		rotates = "yes"
	}
	return [][2]string{
		{"Held", held},
		{"Serial", fmt.Sprint(st.GetSerial())},
		{"Rotates", rotates},
		{"Last used", both(st.GetRefreshTokenExerciseTime(), now, "-")},
		{"Expires", both(st.GetRefreshTokenExpireTime(), now, "not known, or never")},
	}
}

// stateCommand is the command that does something about a state.
func stateCommand(c *tokenbrokerv1.Credential) string {
	name := word(c.GetCredential())
	switch c.GetStatus().GetState() {
	case tokenbrokerv1.CredentialState_CREDENTIAL_STATE_REAUTHORIZE:
		return revive(c)
	case tokenbrokerv1.CredentialState_CREDENTIAL_STATE_PENDING:
		if consents(c.GetSpec().GetGrantType()) && !connectedAlready(c) {
			return strings.TrimSuffix(reconnect(c), " --reauthorize")
		}
		return "-"
	case tokenbrokerv1.CredentialState_CREDENTIAL_STATE_DISABLED:
		return "tokenctl credential enable " + name
	case tokenbrokerv1.CredentialState_CREDENTIAL_STATE_MISCONFIGURED:
		return mend(c)
	default:
		return "-"
	}
}

// revive is the command that brings a credential something to live on.
func revive(c *tokenbrokerv1.Credential) string {
	if consents(c.GetSpec().GetGrantType()) {
		return reconnect(c)
	}
	if need := needs(c.GetSpec()); need != "" {
		return "tokenctl credential import " + word(c.GetCredential()) + " --" + need + "-stdin"
	}
	return "tokenctl credential refresh " + word(c.GetCredential())
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

// guess is said of an end that nobody named.
func guess(st *tokenbrokerv1.CredentialStatus) string {
	if st.GetExpireTimeEstimated() {
		return ", a guess: nobody said when it ends"
	}
	return ""
}
