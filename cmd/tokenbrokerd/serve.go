package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/harden"
)

func serveCommand() *cobra.Command {
	var s settings
	var level slog.Level
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve, as the config file says", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := harden.Process(); err != nil {
				return err
			}
			c, err := s.load()
			if err != nil {
				return err
			}
			collectLess()
			fit(&c.Limits)
			c.Log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return serve(cmd.Context(), c)
		},
	}
	s.flags(cmd)
	cmd.Flags().TextVar(&level, "log-level", slog.LevelInfo, "DEBUG, INFO, WARN or ERROR")
	return cmd
}

// serve runs a broker until ctx ends. SIGHUP has it look at its files.
func serve(ctx context.Context, c daemon.Config) error {
	d, err := daemon.Open(ctx, c)
	if err != nil {
		return err
	}
	c.Log.Info("serving", append(listeners(d.Addr(), d.AdminAddr(), d.OpsAddr()), "version", c.Version)...)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	life, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() {
		for {
			select {
			case <-hup:
				d.Reload(life)
			case <-life.Done():
				return
			}
		}
	})
	if err := d.Run(ctx); err != nil {
		return err
	}
	c.Log.Info("stopped")
	return nil
}

// listeners are the addresses of those that there are, for the log.
func listeners(grpc, admin, ops net.Addr) []any {
	all := []any{"grpc", grpc.String()}
	if admin != nil {
		all = append(all, "admin", admin.String())
	}
	if ops != nil {
		all = append(all, "ops", ops.String())
	}
	return all
}

// collectLess has garbage collected as suits a broker, unless the environment says something.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(daemon.GCPercent)
	}
}
