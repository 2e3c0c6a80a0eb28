package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// atLeast0 are the flags with a number whose commands look at it no further.
var atLeast0 = map[string]string{"count": "0", "recent": "0", "unchained": "0"}

// negative refuses what is below zero and can't be: a wait, and a count of what is to come. No command has use for less than none, and one
// that took it would end at once, or never.
func (c *cli) negative(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		least := atLeast0[f.Name]
		if f.Value.Type() == "duration" {
			least = "0s"
		}
		if least != "" && err == nil && strings.HasPrefix(f.Value.String(), "-") {
			err = usagef("--%s: give %s or more", f.Name, least)
		}
	})
	if err == nil && c.timeout == 0 && cmd.Flags().Changed("timeout") {
		err = usagef("--timeout: give more than 0s")
	}
	return err
}
