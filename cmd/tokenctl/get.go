package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func (c *cli) getCommand() *cobra.Command {
	var like variant
	var force bool
	cmd := &cobra.Command{
		Use: "get CREDENTIAL", Short: "Print an access token", Args: takes("CREDENTIAL"), ValidArgsFunction: c.credentialNames(1),
		Long: `Prints a valid access token and nothing else. It comes from the broker's memory, or from one exchange that all who wait share.

  token            the token alone
  header           an HTTP header, to give to curl without showing it to others: tokenctl get X -o header | curl -H @- URL
  exec-credential  what kubectl and other clients of Kubernetes want from a credential plugin, in the version that KUBERNETES_EXEC_INFO
                   asks for: client.authentication.k8s.io/v1 or v1beta1
  table            what the token is and how its credential stands, without the token
  json             the broker's reply with the token
  yaml             the same

A token is not printed on a terminal, where it would stay in the scroll-back, unless --force is given.`,
		Example: `  TOKEN=$(tokenctl get example/reports)
  tokenctl get example/reports -o header | curl -fsS -H @- https://api.example/reports
  tokenctl get example/reports --scope reports.read --min-validity 30m`,
	}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		if err := c.showable(c.format != "table", force, "-o table"); err != nil {
			return err
		}
		s, err := c.connect()
		if err != nil {
			return err
		}
		defer s.Close()
		return s.get(ctx, like.request(args[0]))
	})
	like.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "print the token even if standard output is a terminal")
	c.outputs(cmd, "token", "header", "exec-credential", "table", "json", "yaml")
	return cmd
}

func (c *cli) headerCommand() *cobra.Command {
	var like variant
	var force bool
	cmd := &cobra.Command{
		Use: "header CREDENTIAL", Short: "Print an access token as an HTTP header", Args: takes("CREDENTIAL"), ValidArgsFunction: c.credentialNames(1),
		Long: `Prints the line that carries the token in an HTTP request, and nothing else: the same as get -o header. curl reads it from standard input,
so that the token is on no command line. Where a credential is an API key with a header of its own, that is what is printed.

Of curl's output nothing is known here: where an API refuses the token, tell the broker by tokenctl report, or use tokenctl curl, which does so and
tries again with a newer one.`,
		Example: `  tokenctl header example/reports | curl -fsS -H @- https://api.example/reports`,
	}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		if err := c.showable(true, force, "tokenctl get -o table"); err != nil {
			return err
		}
		s, err := c.connect()
		if err != nil {
			return err
		}
		defer s.Close()
		s.format = "header"
		return s.get(ctx, like.request(args[0]))
	})
	like.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "print the header even if standard output is a terminal")
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
	version, err := execVersion() // before a token is fetched for nothing
	if err != nil && s.format == "exec-credential" {
		return err
	}
	resp, err := s.handed(ctx, req)
	if err != nil {
		return err
	}
	switch token := resp.GetToken(); s.format {
	case "token":
		_, err = fmt.Fprintln(s.out, token.GetAccessToken())
	case "header":
		_, err = fmt.Fprintln(s.out, header(token))
	case "exec-credential":
		err = s.execCredential(version, req.GetCredential(), token)
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
