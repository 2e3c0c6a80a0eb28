// Command tokenbrokerd is the token broker.
//
//	tokenbrokerd dev                 run a broker with sandbox providers and workers, to look at and to break
//	tokenbrokerd init DIR            make a development CA, certificates, a key, a config and a policy
//	tokenbrokerd serve               serve, as the config file says
//	tokenbrokerd config validate     check a config file and all that it names, and touch nothing
//	tokenbrokerd healthcheck         ask a running broker whether it is ready
//	tokenbrokerd version             say which version this is
//
// Settings come from flags, then environment variables (TOKENBROKERD_…), then the config file, which is strict: a key that it does not
// know is an error.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // and with it package log: net/http writes bytes of a provider's connection there
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 8) // holds those that come while the first one is obeyed
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go obey(signals, cancel)
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "tokenbrokerd:", err)
		os.Exit(1)
	}
}

// sameSignal is how close two signals are taken for one: a supervisor may send it to the process and then to its whole group, and that
// must not cost the drain, however busy the machine is that shuts down.
const sameSignal = time.Second

// obey ends the command in order at the first signal, and the process at the second.
func obey(signals <-chan os.Signal, cancel context.CancelFunc) {
	<-signals
	cancel()
	for first := time.Now(); ; {
		if <-signals; time.Since(first) > sameSignal {
			break
		}
	}
	fmt.Fprintln(os.Stderr, "tokenbrokerd: ended by a second signal, without waiting for exchanges in flight")
	os.Exit(1)
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "tokenbrokerd",
		Short:         "Holds OAuth 2.0 credentials, refreshes them once, hands out short-lived access tokens",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(devCommand(), serveCommand(), initCommand(), configCommand(), healthcheckCommand(), versionCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which version this is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "tokenbrokerd", version())
			return err
		},
	}
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
