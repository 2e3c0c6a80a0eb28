package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (c *cli) manCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "man DIR", Short: "Write the man pages into a folder", Args: takes("DIR"),
		Long: `Writes a man page for each command into a folder, which is made if it is missing. man finds them in a folder called man1
below one that it knows; man -M names another one.`,
		Example: "  tokenctl man ~/.local/share/man/man1"}
	cmd.RunE = c.do(func(_ context.Context, cmd *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // man pages are for all to read
			return err
		}
		root := cmd.Root()
		root.DisableAutoGenTag = true
		forMan(root)
		header := &doc.GenManHeader{Section: "1", Source: "tokenctl " + version(), Manual: "tokenbroker"}
		return doc.GenManTree(root, header, args[0])
	})
	return cmd
}

// forMan changes the help of a command, and of those below it, into what makes a good page: what is indented is set as it is, and the exit
// status has a section.
func forMan(cmd *cobra.Command) {
	cmd.Long = strings.ReplaceAll(cmd.Long, "\n  ", "\n    ")
	cmd.Long = strings.Replace(cmd.Long, "\nExit status:\n", "\n# EXIT STATUS\n", 1)
	for _, sub := range cmd.Commands() {
		forMan(sub)
	}
}

func (c *cli) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Say which version this is", Args: takes()}
	cmd.RunE = c.do(func(context.Context, *cobra.Command, []string) error {
		_, err := fmt.Fprintln(c.out, "tokenctl", version())
		return err
	})
	return cmd
}

// version is the module version, or the revision that the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}
