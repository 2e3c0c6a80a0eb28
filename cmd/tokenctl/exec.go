package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const execLong = `Runs a command that finds tokens in its environment. Its exit status is handed on: 127 if there is no such command, 126 if it can't be run,
128 and the signal if one ended it. A token that can't be had is told before the command starts, with an exit status as anywhere.

  --env VAR=NAME   the variable holds the token itself. Whoever has the same uid reads it in /proc/PID/environ, each process that the command
                   starts inherits it, and it ends when the token does. For what can't take a token in another way.
  --file VAR=NAME  better: the variable holds the path of a file with the token, for you alone (0600), which is kept fresh while the command
                   runs. It is in memory: in XDG_RUNTIME_DIR, else in /dev/shm; where there is neither, in TMPDIR, which is told. It is
                   removed at the end.

With --env alone and nothing to do on renewal, tokenctl becomes the command. Else it waits for it: signals are handed on, and the command ends
when tokenctl is killed (on Linux). Away from a terminal the command is the head of a process group, all of which gets the signals.

When a newer token comes, --on-renewal does
  nothing      (the default) the file is replaced, and that is all
  signal:NAME  a signal, such as HUP, goes to the command after the file is replaced
  restart      the command is ended with TERM, after --grace with KILL, and started again with the new tokens`

// execJob is one tokenctl exec.
type execJob struct {
	*session
	like      variant
	env, file []string // VAR=NAME
	format    string
	renewal   string
	grace     time.Duration

	command []string
	signal  syscall.Signal    // on renewal; 0 = none
	vars    map[string]string // variable → credential, of --env
	files   map[string]string // the same, of --file
	latest  map[string]handout
	told    map[string]string // credential → end of its token, once that was told
	dir     string            // of the files
}

func (c *cli) execCommand() *cobra.Command {
	j := &execJob{vars: map[string]string{}, files: map[string]string{}, told: map[string]string{}}
	cmd := &cobra.Command{
		Use: "exec [flags] {--env|--file} VAR=CREDENTIAL… -- COMMAND ARGUMENTS…", DisableFlagsInUseLine: true, Short: "Run a command with access tokens", Long: execLong,
		Args: func(cmd *cobra.Command, args []string) error { return takes("COMMAND")(cmd, args[:min(1, len(args))]) },
		Example: `  tokenctl exec --file TOKEN_FILE=example/reports -- ./worker
  tokenctl exec --format header --file HEADER=example/reports -- sh -c 'curl -fsS -H @"$HEADER" https://api.example/reports'
  tokenctl exec --file TOKEN_FILE=example/reports --on-renewal signal:HUP -- ./daemon
  tokenctl exec --env API_TOKEN=example/reports -- ./job`,
	}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) (err error) {
		if err := j.check(args); err != nil {
			return err
		}
		if j.session, err = c.connect(); err != nil {
			return err
		}
		defer j.Close()
		return j.run(ctx)
	})
	j.like.add(cmd)
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the command is its own
	f.StringArrayVar(&j.env, "env", nil, "put a token into a variable: `VAR=CREDENTIAL`; repeatable")
	f.StringArrayVar(&j.file, "file", nil, "put the path of a file with a token into a variable: `VAR=CREDENTIAL`; repeatable")
	f.StringVar(&j.format, "format", "token", "what a file holds: token, header, json")
	f.StringVar(&j.renewal, "on-renewal", "nothing", "what happens when a newer token comes: nothing, signal:NAME or restart")
	f.DurationVar(&j.grace, "grace", 10*time.Second, "how long the command has to end before a restart")
	complete(cmd, "format", "token", "header", "json")
	complete(cmd, "on-renewal", "nothing", "signal:HUP", "restart")
	return cmd
}

// variable is a name that every shell can read.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (j *execJob) check(args []string) error {
	j.command = args
	for _, set := range []struct {
		flag string
		args []string
		to   map[string]string
	}{{"env", j.env, j.vars}, {"file", j.file, j.files}} {
		for _, arg := range set.args {
			name, credential, ok := assigned(arg)
			if !ok || !variable.MatchString(name) {
				return usagef("--%s: give VAR=CREDENTIAL", set.flag)
			}
			if j.vars[name] != "" || j.files[name] != "" {
				return usagef("--%s: a variable is there twice", set.flag)
			}
			set.to[name] = credential
		}
	}
	switch {
	case len(j.vars)+len(j.files) == 0:
		return usageError("give --env or --file", "tokenctl exec --help")
	case !isFormat(j.format):
		return usagef("--format: give token, header or json")
	case len(j.files) == 0 && j.format != "token":
		return usagef("--format goes with --file: a variable of --env holds the token alone")
	}
	return j.checkRenewal()
}

func (j *execJob) checkRenewal() error {
	name, isSignal := strings.CutPrefix(j.renewal, "signal:")
	if isSignal {
		j.signal = signalNamed(name)
	}
	switch {
	case isSignal && j.signal == 0, !isSignal && j.renewal != "nothing" && j.renewal != "restart":
		return usagef("--on-renewal: give nothing, signal:NAME or restart")
	case isSignal && len(j.files) == 0:
		return usagef("--on-renewal signal goes with --file: the environment of a process that runs can't be changed")
	}
	return nil
}

// run gets the tokens and runs the command.
func (j *execJob) run(ctx context.Context) (err error) {
	path, err := exec.LookPath(j.command[0])
	if err != nil {
		return j.notRun(err)
	}
	names := slices.Compact(slices.Sorted(maps.Values(j.credentials())))
	if j.latest, err = j.first(ctx, &j.like, names); err != nil {
		return err
	}
	if len(j.files) == 0 && j.renewal == "nothing" {
		return j.notRun(become(path, j.command, j.environ()))
	}
	if len(j.files) > 0 {
		if err := j.folder(); err != nil {
			return err
		}
		defer os.RemoveAll(j.dir)
	}
	if err := j.write(""); err != nil {
		return err
	}
	return j.supervise(context.WithoutCancel(ctx), path, names) // it ends when the command does, to which signals are handed on
}

// notRun is why a command can't be run, with the exit status that a shell gives.
func (j *execJob) notRun(err error) error {
	status := 126
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		status = 127
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err
	}
	j.note("can't run %s: %s", word(clean(j.command[0])), cause(err))
	return &childExit{status}
}

// credentials are those of all variables.
func (j *execJob) credentials() map[string]string {
	all := maps.Clone(j.vars)
	maps.Copy(all, j.files)
	return all
}

// environ is the environment of the command. Only the command has the tokens in it.
func (j *execJob) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		return j.vars[name] != "" || j.files[name] != ""
	})
	for name, credential := range j.vars {
		env = append(env, name+"="+j.latest[credential].AccessToken)
	}
	for name := range j.files {
		env = append(env, name+"="+j.dir+"/"+name)
	}
	return env
}

// folder makes a folder that nobody else can look into, in memory if there is a place.
func (j *execJob) folder() (err error) {
	for _, parent := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"} {
		if parent == "" {
			continue
		}
		if j.dir, err = os.MkdirTemp(parent, "tokenctl-"); err == nil { // 0700
			return nil
		}
	}
	if j.dir, err = os.MkdirTemp("", "tokenctl-"); err == nil {
		j.note("there is neither XDG_RUNTIME_DIR nor /dev/shm: the token is in %s", j.dir)
	}
	return err
}

// write writes the files of a credential; "" = of all.
func (j *execJob) write(of string) error {
	for name, credential := range j.files {
		if of != "" && of != credential {
			continue
		}
		s, err := newSink(j.dir+"/"+name, 0o600)
		if err != nil {
			return err
		}
		text, err := j.latest[credential].text(j.format)
		if err != nil {
			return err
		}
		if _, err := s.write(text); err != nil {
			return err
		}
	}
	return nil
}

// take notes news. It reports whether there is a newer token.
func (j *execJob) take(n renewal) bool {
	switch {
	case n.none != "":
		j.note("%s; the command keeps the last one", n.none)
		return false
	case n.token.Generation <= j.latest[n.credential].Generation:
		return false
	}
	j.latest[n.credential] = n.token
	if err := j.write(n.credential); err != nil {
		j.note("%v", err)
	}
	return true
}
