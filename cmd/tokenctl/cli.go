package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// cli is one run of the command: what all commands share.
type cli struct {
	in        io.Reader
	out, errs io.Writer

	addr, server  string // flags of the connection; "" = as the environment says
	ca, cert, key string
	workload      string        // address of the SPIFFE Workload API, in place of these
	timeout       time.Duration // for each answer of the broker

	format    string // -o
	noHeaders bool
	started   bool // the command line was understood, and the command itself ran

	browse func(url string) error // opens a browser; nil = that of the desktop
	leave  func()                 // what to undo before a signal ends the process; nil = nothing
}

const rootLong = `tokenctl speaks to a tokenbroker: it gets tokens for scripts, and keeps credentials and OAuth clients for operators.

Where the broker is, and as whom to speak to it, is said by environment variables or the flags of the same names:

  TOKENBROKER_ADDR         host:port of the broker (several with commas between), or unix:///path of an agent's socket, which wants nothing of the following
  TOKENBROKER_CA           PEM file with the CA of the broker
  TOKENBROKER_CERT         PEM file with your certificate
  TOKENBROKER_KEY          PEM file with its key
  TOKENBROKER_WORKLOAD_API address of the SPIFFE Workload API, in place of these files (or SPIFFE_ENDPOINT_SOCKET)
  TOKENBROKER_SERVER_NAME  SPIFFE ID, DNS name or IP address in the broker's certificate, if it is not the host of the address

Data goes to standard output, all else to standard error. Secrets go in by standard input, a file or a prompt, never by a flag.

Exit status:

`

func (c *cli) root() *cobra.Command {
	root := c.group("tokenctl", "Get tokens from a tokenbroker, and keep its credentials",
		c.getCommand(), c.headerCommand(), c.curlCommand(), c.fileCommand(), c.execCommand(), c.gitCredentialCommand(), c.reportCommand(), c.subscribeCommand(),
		c.agentCommand(),
		c.connectCommand(), c.importCommand(), c.credentialCommand(), c.clientCommand(), c.consentCommand(),
		c.providerCommand(), c.policyCommand(), c.auditCommand(), c.explainCommand(), c.sandboxCommand(), c.manCommand(), c.versionCommand())
	root.Long, root.SilenceUsage, root.SilenceErrors = rootLong+exitHelp(), true, true
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.errs)
	root.SetFlagErrorFunc(misflag)
	readable(root)
	f := root.PersistentFlags()
	f.StringVar(&c.addr, "addr", "", "host:port of the broker, several with commas between, or unix:///path of an agent's socket (TOKENBROKER_ADDR)")
	f.StringVar(&c.ca, "ca", "", "PEM `file` with the CA of the broker (TOKENBROKER_CA)")
	f.StringVar(&c.cert, "cert", "", "PEM `file` with your certificate (TOKENBROKER_CERT)")
	f.StringVar(&c.key, "key", "", "PEM `file` with its key (TOKENBROKER_KEY)")
	f.StringVar(&c.workload, "workload-api", "", "`address` of the SPIFFE Workload API, in place of these files (TOKENBROKER_WORKLOAD_API, SPIFFE_ENDPOINT_SOCKET)")
	f.StringVar(&c.server, "server-name", "", "`name` in the broker's certificate, if it is not the host of the address (TOKENBROKER_SERVER_NAME)")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "how long to wait for each answer of the broker")
	return root
}

// do is a RunE that notes that the command line was understood, and refuses numbers that no command could use.
func (c *cli) do(run func(ctx context.Context, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c.started = true
		if err := c.negative(cmd); err != nil {
			return err
		}
		return run(cmd.Context(), cmd, args)
	}
}

// with is a RunE with a connection to the broker.
func (c *cli) with(run func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	return c.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		s, err := c.connect()
		if err != nil {
			return err
		}
		defer s.Close()
		return run(ctx, s, args)
	})
}

// group is a command that only holds others.
func (c *cli) group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: known, SuggestionsMinimumDistance: 2,
		RunE: c.do(func(_ context.Context, cmd *cobra.Command, _ []string) error { return cmd.Help() })}
	cmd.AddCommand(commands...)
	return cmd
}

// known refuses what is no command of a group, and names one that is like it.
func known(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("argument 1 is no command of %q", cmd.CommandPath())
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		text += ": did you mean " + strings.Join(like, " or ") + "?"
	}
	return errors.New(text)
}

// takes wants these arguments, and no more.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args); n < len(names) {
			return fmt.Errorf("the argument %s is missing", names[n])
		}
		return atMost(names...)(cmd, args)
	}
}

// atMost wants no more than these arguments. It tells which one is too many by its position: it may be a secret that is misplaced.
func atMost(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) <= len(names) {
			return nil
		}
		return fmt.Errorf("argument %d is too many: it takes %s", len(names)+1, or(strings.Join(names, " "), "none"))
	}
}

// nameLike is a name of a flag or a field: letters alone, so that no password looks like one.
var nameLike = regexp.MustCompile(`^[A-Za-z]+([-_][A-Za-z]+)*$`)

// misflag says what is wrong with a flag, without its value.
func misflag(cmd *cobra.Command, err error) error {
	if _, ok := errors.AsType[*pflag.NotExistError](err); ok && cmd.Name() == "curl" {
		return errors.New("a flag that tokenctl curl does not have: curl's own arguments come after --, as in tokenctl curl CREDENTIAL -- -fsS URL")
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && (e.GetSpecifiedName() == "o" || e.GetSpecifiedName() == "output") {
		if cmd.Name() == "header" {
			return errors.New("tokenctl header has no -o: tokenctl get has it")
		}
		return fmt.Errorf("%s has no -o", cmd.CommandPath())
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Errorf("--%s: give a value of the type %s", e.GetFlag().Name, e.GetFlag().Value.Type())
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return fmt.Errorf("--%s: the value is missing", e.GetFlag().Name)
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedShortnames() == "" && nameLike.MatchString(e.GetSpecifiedName()) {
		return fmt.Errorf("unknown flag: --%s", e.GetSpecifiedName())
	}
	return errors.New("an argument begins with - and is no flag")
}

// terminal reports whether a stream is a terminal.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
