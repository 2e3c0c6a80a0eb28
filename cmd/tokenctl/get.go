package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) getCommand() *cobra.Command {
	var req tokenbrokerv1.GetTokenRequest
	var validity time.Duration
	var force bool
	cmd := &cobra.Command{
		Use: "get CREDENTIAL", Short: "Print an access token", Args: takes("CREDENTIAL"), ValidArgsFunction: c.credentialNames(1),
		Long: `Prints a valid access token and nothing else. It comes from the broker's memory, or from one exchange that all who wait share.

  token    the token alone
  header   an HTTP header, to give to curl without showing it to others: tokenctl get X -o header | curl -H @- URL
  table    what the token is and how its credential stands, without the token
  json     the broker's reply with the token
  yaml     the same

A token is not printed on a terminal, where it would stay in the scroll-back, unless --force is given.`,
		Example: `  TOKEN=$(tokenctl get example/reports)
  tokenctl get example/reports -o header | curl -fsS -H @- https://api.example/reports
  tokenctl get example/reports --scope reports.read --min-validity 30m`,
	}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		if err := c.showable(c.format != "table", force, "-o table"); err != nil {
			return err
		}
		if req.Credential = args[0]; cmd.Flags().Changed("min-validity") {
			req.MinValidity = durationpb.New(validity)
		}
		s, err := c.connect()
		if err != nil {
			return err
		}
		defer s.Close()
		return s.get(ctx, &req)
	})
	f := cmd.Flags()
	f.StringArrayVar(&req.Scopes, "scope", nil, "a scope that the token has to have; repeatable (default: the credential's own)")
	f.StringVar(&req.Subject, "subject", "", "whom the token is to act for (default: the credential's own)")
	f.StringVar(&req.Audience, "audience", "", "whom the token is for (default: the credential's own)")
	f.DurationVar(&validity, "min-validity", 0, "how long the token has to be valid yet, up to 24h")
	f.BoolVar(&force, "force", false, "print the token even if standard output is a terminal")
	c.outputs(cmd, "token", "header", "table", "json", "yaml")
	return cmd
}

// showable refuses to print a token on a terminal.
func (c *cli) showable(token, force bool, instead string) error {
	if token && !force && terminal(c.out) {
		return &failure{exit: exitUsage, what: "a token is not printed on a terminal: it would stay in the scroll-back",
			action: "send it into a pipe, a file or a variable; " + instead + " shows what it is; --force prints it all the same"}
	}
	return nil
}

func (s *session) get(ctx context.Context, req *tokenbrokerv1.GetTokenRequest) error {
	resp, err := call(ctx, s, s.tokens.GetToken, req)
	if err != nil {
		return err
	}
	token := resp.GetToken()
	if !visible(token.GetAccessToken()) || !visible(token.GetTokenType()) || !visible(token.GetMetadata()[tokenbroker.HeaderField]) {
		return fmt.Errorf("credential %s: its token has characters that no token may have (RFC 6749, appendix A.12)", req.GetCredential())
	}
	switch s.format {
	case "token":
		_, err = fmt.Fprintln(s.out, token.GetAccessToken())
	case "header":
		_, err = fmt.Fprintln(s.out, header(token))
	default:
		err = s.emit(resp, func(w io.Writer) error { return s.tokenTable(w, req.GetCredential(), resp, time.Now()) })
	}
	return err
}

// visible reports whether a text is of characters that can't do anything to a terminal or a header.
func visible(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}

// header is the line that carries a token in a request: an API key may have a header of its own.
func header(token *tokenbrokerv1.Token) string {
	if own := token.GetMetadata()[tokenbroker.HeaderField]; own != "" {
		return own + ": " + token.GetAccessToken()
	}
	return "Authorization: " + scheme(token.GetTokenType()) + " " + token.GetAccessToken()
}

// scheme is how HTTP spells a token type: providers say "bearer", too.
func scheme(tokenType string) string {
	if tokenType == "" || strings.EqualFold(tokenType, "Bearer") {
		return "Bearer"
	}
	return tokenType
}

func (s *session) tokenTable(w io.Writer, name string, resp *tokenbrokerv1.GetTokenResponse, now time.Time) error {
	t := resp.GetToken()
	return s.table(w, []string{"CREDENTIAL", "GENERATION", "STATE", "TYPE", "EXPIRES", "REFRESH", "SCOPES"}, [][]string{{
		name, fmt.Sprint(t.GetGeneration()), stateWord(resp.GetState()), t.GetTokenType(), relative(t.GetExpireTime(), now),
		relative(resp.GetRefreshTime(), now), list(t.GetScopes(), "-")}})
}
