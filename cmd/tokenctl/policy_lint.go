package main

import (
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

func (c *cli) policyLint() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{Use: "lint [FILE]", Short: "List what is doubtful in the policy in force, or check a policy file", Args: atMost("FILE"),
		Long: `With a file it reads a policy as the broker would, and lists what is doubtful in it: rules that give more than anybody can
have had in mind, and rules that do nothing. It needs no broker then. - reads standard input. Without a file it asks the
broker about the policy in force, which also knows the credentials and what was used. The exit status is 7 if the broker
would refuse the policy, and, with --strict, if anything was found.`}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		resp, refused := c.lint(ctx, args)
		if resp == nil || refused != nil && c.format == "table" {
			return refused
		}
		if err := errors.Join(c.showDoubts(resp), refused); err != nil {
			return err
		}
		if n := len(resp.GetFindings()); strict && n > 0 {
			return &failure{exit: exitFix, what: fmt.Sprintf("the policy has %s that --strict does not let pass", counted(n, "finding"))}
		}
		return nil
	})
	cmd.Flags().BoolVar(&strict, "strict", false, "fail if anything is found")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// lint lints a file, or the policy in force.
func (c *cli) lint(ctx context.Context, args []string) (*tokenbrokerv1.LintResponse, error) {
	if len(args) > 0 {
		return c.lintFile(ctx, args[0])
	}
	s, err := c.connect()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return call(ctx, s, s.policies.Lint, &tokenbrokerv1.LintRequest{})
}

// lintFile lints a policy by itself: it knows nothing of credentials and uses. Of a file that the broker would refuse it returns what is
// wrong, and an error.
func (c *cli) lintFile(ctx context.Context, path string) (*tokenbrokerv1.LintResponse, error) {
	data, err := c.slurpUpTo(ctx, "argument 1", path, policy.MaxFileBytes)
	if err != nil {
		return nil, err
	}
	p, err := policy.Parse(data)
	if err != nil {
		refused := &tokenbrokerv1.LintResponse{}
		for text := range strings.SplitSeq(err.Error(), "\n") {
			refused.Findings = append(refused.Findings, &tokenbrokerv1.Finding{Check: "refused", Message: text})
		}
		return refused, c.told(path, err)
	}
	resp := &tokenbrokerv1.LintResponse{PolicyRevision: p.Revision()}
	for _, f := range p.Lint(policy.Facts{Now: time.Now()}) {
		resp.Findings = append(resp.Findings, &tokenbrokerv1.Finding{Check: f.Check, Rule: f.Rule, Credential: f.Credential, Message: f.Message})
	}
	return resp, nil
}

// showDoubts prints findings about a policy.
func (c *cli) showDoubts(resp *tokenbrokerv1.LintResponse) error {
	return c.emit(resp, func(w io.Writer) error {
		if len(resp.GetFindings()) == 0 {
			_, err := fmt.Fprintln(c.errs, "nothing to say: it is all right")
			return err
		}
		rows := make([][]string, 0, len(resp.GetFindings()))
		for _, f := range resp.GetFindings() {
			rows = append(rows, []string{f.GetCheck(), or(f.GetRule(), "-"), or(f.GetCredential(), "-"), f.GetMessage()})
		}
		return c.table(w, []string{"CHECK", "RULE", "CREDENTIAL", "WHAT"}, rows)
	})
}
