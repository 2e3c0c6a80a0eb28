package main

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/terminal"
	"github.com/tokenbroker/tokenbroker/harden"
)

func devCommand() *cobra.Command {
	var c dev.Config
	var config string
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a broker with sandbox providers, credentials and workers, to look at. Not for production", Args: cobra.NoArgs,
		Long: `Runs, in one process and without any network but loopback: a broker on a throwaway store with a development CA, a sandbox
provider with three issuers (fast, rotating, flaky), four credentials, and three workers that subscribe over mTLS and use each
token. On a terminal it shows them in a live table, with keys that make things go wrong; elsewhere it prints a line for whatever
happens. It says how to join in with tokenctl and grpcurl. Ctrl-C ends it and removes what it made, unless --dir was given.

With --config it runs your own config and policy instead, with the sandbox in place of every provider and a certificate for each
identity that the policy names. Your store, key and audit log are not opened, and need not be there.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := harden.Process(); err != nil {
				return err
			}
			if config != "" {
				s := settings{config: config}
				own, err := s.load()
				if err != nil {
					return err
				}
				c.Own, c.OwnFile = &own, config
			}
			signal.Ignore(syscall.SIGPIPE) // dev | head: it ends by the failed write, and leaves nothing
			c.Out, c.Version, c.Colour = cmd.OutOrStdout(), version(), dev.Colour()
			c.Terminal = terminal.Of(cmd.InOrStdin(), c.Out)
			return dev.Run(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVar(&c.Dir, "dir", "", "new or empty folder for its files, which stay (default: a temporary one)")
	cmd.Flags().StringVar(&c.Listen, "listen", "", "loopback address for gRPC (default: any free port of 127.0.0.1)")
	cmd.Flags().StringVar(&config, "config", "", "config file of your own to try, with sandbox providers and a throwaway store")
	return cmd
}
