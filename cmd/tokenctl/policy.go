package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker/policy"
)

func (c *cli) policyCommand() *cobra.Command {
	return c.group("policy", "Check a policy, test what it decides, and explain decisions",
		c.policyExplain(),
		c.policyLint(),
		c.policyTest(),
	)
}

// told is an error of a file of which each problem was printed on a line of its own.
func (c *cli) told(path string, err error) error {
	problems := strings.Split(err.Error(), "\n")
	for _, p := range problems {
		if _, err := fmt.Fprintln(c.errs, clean(path+": "+p)); err != nil {
			return err
		}
	}
	return &failure{exit: exitFix, what: fmt.Sprintf("%s is refused: %s to correct", path, counted(len(problems), "thing"))}
}

// mode is said of a rule that is not enforced.
func mode(m policy.Mode) string {
	if m == policy.ModeAudit {
		return " (audit mode)"
	}
	return ""
}
