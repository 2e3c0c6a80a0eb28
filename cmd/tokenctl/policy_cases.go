package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tokenbroker/tokenbroker/policy"
)

// outcomes is what came of the cases of some files.
type outcomes struct {
	cases int
	wrong []wrong
}

// wrong is a case that the policy decides otherwise, and the file that it is in.
type wrong struct {
	file string
	policy.Mismatch
}

func (c *cli) policyTest() *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "test --policy FILE CASES...", Short: "Test a policy against files of expected decisions",
		Long: `Decides the requests in files of expected decisions by a policy file, as the broker would, and prints those that come out
otherwise, with what each rule says that names the identity. It needs no broker, so it suits CI. One of the files may be -,
for standard input. The exit status is 1 if a decision differs, and 7 if a file is refused.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("the argument CASES is missing")
			}
			return nil
		}}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		if n := len(slices.DeleteFunc(append([]string{path}, args...), func(s string) bool { return s != "-" })); n > 1 {
			return usagef("standard input can be one file: give - once")
		}
		found, err := c.testFiles(ctx, path, args)
		if err != nil {
			return err
		}
		if err := c.showOutcomes(found); err != nil || len(found.wrong) == 0 {
			return err
		}
		return &failure{exit: exitOther, what: fmt.Sprintf("%d of %s decided otherwise than expected", len(found.wrong), counted(found.cases, "case"))}
	})
	cmd.Flags().StringVar(&path, "policy", "", "policy `file` to test")
	_ = cmd.MarkFlagRequired("policy")
	c.outputs(cmd, "text", "json", "yaml")
	return cmd
}

// testFiles runs the cases of files against the policy of a file.
func (c *cli) testFiles(ctx context.Context, path string, files []string) (*outcomes, error) {
	data, err := c.slurpUpTo(ctx, "--policy", path, policy.MaxFileBytes)
	if err != nil {
		return nil, err
	}
	p, err := policy.Parse(data)
	if err != nil {
		return nil, c.told(path, err)
	}
	found := &outcomes{}
	for i, file := range files {
		data, err := c.slurpUpTo(ctx, fmt.Sprintf("argument %d", i+1), file, policy.MaxFileBytes)
		if err != nil {
			return nil, err
		}
		cases, err := policy.ParseCases(data)
		if err != nil {
			return nil, c.told(file, err)
		}
		found.cases += len(cases)
		for _, m := range p.Test(cases) {
			found.wrong = append(found.wrong, wrong{file, m})
		}
	}
	return found, nil
}

func (c *cli) showOutcomes(found *outcomes) error {
	m, err := structpb.NewStruct(found.object())
	if err != nil {
		return err
	}
	return c.emit(m, func(w io.Writer) error {
		if len(found.wrong) == 0 {
			_, err := fmt.Fprintf(c.errs, "%s: decided as expected\n", counted(found.cases, "case"))
			return err
		}
		_, err := io.WriteString(w, found.text())
		return err
	})
}

// text is what differs, for people.
func (o *outcomes) text() string {
	var b strings.Builder
	for _, m := range o.wrong {
		fmt.Fprintln(&b, clean(strings.TrimSuffix(fmt.Sprintf("%s:%d: %s", m.file, m.Case.Line, m.Case.Name), ": ")))
		fmt.Fprintln(&b, clean("  "+m.String()))
		for _, line := range m.why() {
			fmt.Fprintln(&b, clean("  "+line))
		}
	}
	return b.String()
}

// why explains the decision: a line for each rule that names the identity.
func (w wrong) why() []string {
	if len(w.Verdicts) == 0 {
		return []string{"no rule names " + w.Case.Request.Identity}
	}
	var lines []string
	for _, v := range w.Verdicts {
		line := fmt.Sprintf("rule %s%s: %s", v.Rule, mode(v.Mode), or(strings.TrimSpace(string(v.Reason)+" "+v.DeniedScope), "allows it"))
		if v.Reason == policy.ReasonExpired && w.Case.Request.Time.IsZero() {
			line += ", as the case has no time"
		}
		lines = append(lines, line)
	}
	return lines
}

// object is the outcome for scripts.
func (o *outcomes) object() map[string]any {
	differ := make([]any, 0, len(o.wrong))
	for _, m := range o.wrong {
		verdicts := make([]any, 0, len(m.Verdicts))
		for _, v := range m.Verdicts {
			verdicts = append(verdicts, map[string]any{"rule": v.Rule, "reason": string(v.Reason), "deniedScope": v.DeniedScope, "mode": v.Mode.String()})
		}
		differ = append(differ, map[string]any{
			"file": m.file, "line": m.Case.Line, "name": m.Case.Name, "says": m.String(), "verdicts": verdicts,
			"want": map[string]any{"allowed": m.Case.Allow, "rule": m.Case.Rule, "reason": string(m.Case.Reason)},
			"got":  map[string]any{"allowed": m.Got.Allowed, "rule": m.Got.Rule, "reason": string(m.Got.Reason), "deniedScope": m.Got.DeniedScope},
		})
	}
	return map[string]any{"cases": o.cases, "differ": differ}
}
