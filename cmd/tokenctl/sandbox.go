package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/sandbox/serve"
)

// controlVariable says where the control endpoint of a sandbox is.
const controlVariable = "TOKENBROKER_SANDBOX"

func (c *cli) sandboxCommand() *cobra.Command {
	cmd := c.group("sandbox", "Run an OAuth provider for tests, and make it fail",
		c.sandboxServe(), c.sandboxScenario(), c.sandboxFault(), c.sandboxFaults(), c.sandboxClear(), c.sandboxRelease(), c.sandboxJournal(),
		c.sandboxAdvance(), c.sandboxRotation(), c.sandboxSeed(), c.sandboxRevoke(), c.sandboxApprove(), c.sandboxDeny(), c.sandboxAuthorize(), c.sandboxKey())
	cmd.Long = "An OAuth 2.0 authorization server for tests: strict by default, and scriptable. No broker is needed.\n\n" +
		"tokenctl sandbox serve runs one; the other commands speak to its control endpoint, which --control or " + controlVariable + " names."
	cmd.PersistentFlags().String("control", "", "URL of the sandbox's control endpoint ("+controlVariable+"); with serve, host:port to open it on")
	return cmd
}

// serving are the flags of sandbox serve.
type serving struct {
	file, listen, caFile string
	plain, remote        bool
}

func (c *cli) sandboxServe() *cobra.Command {
	var f serving
	cmd := &cobra.Command{Use: "serve", Short: "Run a sandbox until interrupted, and print where it is", Args: takes(),
		Long: `Runs an OAuth 2.0 authorization server and prints where it is, with a snippet for the configuration of a broker.

It listens on loopback over TLS, with a certificate that it makes; --ca-file says where to write the CA for it. Without -f it runs the
scenario that "tokenctl sandbox scenario" prints.`}
	cmd.RunE = c.do(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		control, err := cmd.Flags().GetString("control")
		if err != nil {
			return err
		}
		return c.runSandbox(ctx, f, control)
	})
	cmd.Flags().StringVarP(&f.file, "filename", "f", "", "YAML `file` with the scenario")
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:0", "`host:port` to listen on; port 0 takes a free one")
	cmd.Flags().StringVar(&f.caFile, "ca-file", "sandbox-ca.pem", "`file` to write the CA to; it is removed at the end")
	cmd.Flags().BoolVar(&f.plain, "http", false, "no TLS")
	cmd.Flags().BoolVar(&f.remote, "allow-remote", false, "listen where others can reach it; who does can get tokens")
	c.outputs(cmd, "text", "json")
	return cmd
}

func (c *cli) runSandbox(ctx context.Context, f serving, control string) error {
	scenario, err := readScenario(f.file)
	if err != nil {
		return err
	}
	s, err := serve.Listen(ctx, serve.Config{Scenario: scenario, Listen: f.listen, Control: control, PlainHTTP: f.plain, AllowRemote: f.remote})
	if err != nil {
		what := err.Error()
		if errors.Is(err, serve.ErrRemote) {
			what += "; --allow-remote says that you mean it"
		}
		return &failure{exit: exitUsage, what: what, err: err}
	}
	caFile := ""
	if s.CA != nil {
		if caFile, err = writeCA(f.caFile, s.CA); err != nil {
			return errors.Join(err, s.Close())
		}
		defer os.Remove(caFile)
	}
	if err := c.announce(s, caFile); err != nil {
		return errors.Join(err, s.Close())
	}
	return s.Run(ctx)
}

func readScenario(file string) (sandbox.Scenario, error) {
	data := serve.Demo()
	if file != "" {
		var err error
		if data, err = os.ReadFile(file); err != nil {
			return sandbox.Scenario{}, usagef("--filename: %s", reasonOf(err))
		}
	}
	s, err := sandbox.ParseScenario(data)
	if err != nil {
		return s, usagef("%s: %v", or(file, "the demo"), err)
	}
	return s, nil
}

// reasonOf is an error of the system without the path, which the one at the keyboard knows.
func reasonOf(err error) string {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Err.Error()
	}
	return err.Error()
}

// writeCA writes the file anew, so that none is written over that is something else.
func writeCA(file string, pem []byte) (string, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("--ca-file: %w", err)
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", usagef("--ca-file: %s", reasonOf(err))
	}
	_, err = out.Write(pem)
	return path, errors.Join(err, out.Close())
}

// announce prints where the sandbox is.
func (c *cli) announce(s *serve.Server, caFile string) error {
	if c.format == "json" {
		issuers := map[string]string{}
		for _, name := range s.Issuers() {
			issuers[name] = s.URL + "/" + name
		}
		return json.NewEncoder(c.out).Encode(map[string]any{"url": s.URL, "control": s.ControlURL, "ca_file": caFile, "issuers": issuers})
	}
	for _, name := range s.Issuers() {
		at := s.URL + "/" + name
		if _, err := fmt.Fprintf(c.out, "issuer %s\n  discovery  %s/%s\n  token      %s/token\n  authorize  %s/authorize\n  device     %s/device\n  resource   %s/resource\n",
			name, at, sandbox.EndpointDiscovery, at, at, at, at); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(c.out, "\n# for tokenctl sandbox fault, journal, advance and the like\nexport %s=%s\n\n# for the configuration of a broker\n%s",
		controlVariable, s.ControlURL, s.Providers(caFile))
	return err
}

func (c *cli) sandboxScenario() *cobra.Command {
	cmd := &cobra.Command{Use: "scenario", Short: "Print the scenario that serve runs without -f, to start from", Args: takes()}
	cmd.RunE = c.do(func(context.Context, *cobra.Command, []string) error {
		_, err := c.out.Write(serve.Demo())
		return err
	})
	return cmd
}

// faultHelp lists the kinds of faults.
func faultHelp(w io.Writer) {
	for _, kind := range sandbox.FaultKinds() {
		if kind != "" {
			_, _ = fmt.Fprintf(w, "  %-11s %s\n", kind, sandbox.FaultHelp(kind))
		}
	}
}
