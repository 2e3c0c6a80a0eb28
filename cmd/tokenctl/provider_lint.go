package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tokenbroker/tokenbroker/provider"
)

func (c *cli) providerLint() *cobra.Command {
	cmd := &cobra.Command{Use: "lint FILE", Short: "Check a profile, or the providers of a configuration file, as the broker would", Args: takes("FILE"),
		Long: `Checks a provider profile of your own, or all under "providers" in a configuration file, as the broker would, and gives advice on
top. It needs no broker. - reads standard input. The exit status is 7 if the broker would refuse one.`}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		data, err := c.slurp(ctx, "argument 1", args[0])
		if err != nil {
			return err
		}
		findings := provider.Lint(strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0])), data)
		if err := c.showFindings(findings); err != nil {
			return err
		}
		return faults(findings)
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (c *cli) showFindings(findings []provider.Finding) error {
	rows, objects := make([][]string, 0, len(findings)), make([]any, 0, len(findings))
	for _, f := range findings {
		rows = append(rows, []string{or(f.Provider, "-"), string(f.Severity), f.Text})
		objects = append(objects, map[string]any{"provider": f.Provider, "severity": string(f.Severity), "text": f.Text})
	}
	m, err := structpb.NewStruct(map[string]any{"findings": objects})
	if err != nil {
		return err
	}
	return c.emit(m, func(w io.Writer) error {
		if len(rows) == 0 {
			_, err := fmt.Fprintln(c.errs, "nothing to say: it is all right")
			return err
		}
		return c.table(w, []string{"PROVIDER", "SEVERITY", "WHAT"}, rows)
	})
}

// faults is an error if the broker would refuse one of the profiles.
func faults(findings []provider.Finding) error {
	n := 0
	for _, f := range findings {
		if f.Severity == provider.SeverityError {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return &failure{exit: exitFix, what: fmt.Sprintf("the broker would refuse this: %d things to correct", n)}
}
