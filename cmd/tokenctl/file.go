package main

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const fileLong = `Keeps tokens in files, for programs that read them from there, until a signal ends it (exit status 0). Each file belongs to you alone
(0600) and is replaced as a whole by renaming, so that nobody reads half a token. While there is no new token, because the broker can't be
reached or the grant is dead, the last one stays, also past its end: that is told on standard error, and --format json has the time. If there is no
token at the start, nothing is written, and the exit status says why.

  token   the token alone, without a newline at its end
  header  an HTTP header, for curl -H @FILE
  json    access_token, token_type, expire_time, scope, generation

A file has to be in a folder that nobody else may write to, and may not be a symbolic link. --once writes and ends, for ExecStartPre or cron.
After a change, --signal tells the process whose number is in a file, and --run runs a command with sh; if that fails, it is told and goes on.
A program that an API answers with 401 tells the broker by tokenctl report --token-file, and then reads the file anew.`

// fileJob is one tokenctl file.
type fileJob struct {
	*session
	like   variant
	format string
	mode   string
	signal string // NAME:PIDFILE
	run    string
	once   bool
	remove bool

	sinks  map[string][]*sink // credential → files
	latest map[string]handout // by credential
	told   map[string]string  // credential → end of its token, once that was told
}

func (c *cli) fileCommand() *cobra.Command {
	j := &fileJob{sinks: map[string][]*sink{}, told: map[string]string{}}
	cmd := &cobra.Command{
		Use: "file PATH=CREDENTIAL…", Short: "Keep access tokens in files", Long: fileLong,
		Args: func(cmd *cobra.Command, args []string) error {
			return takes("PATH=CREDENTIAL")(cmd, args[:min(1, len(args))])
		},
		Example: `  tokenctl file /run/reports/token=example/reports
  tokenctl file --format json --signal HUP:/run/app.pid /run/app/token.json=example/app
  tokenctl file --once --format header /run/reports/header=example/reports`,
	}
	cmd.RunE = c.do(func(ctx context.Context, _ *cobra.Command, args []string) (err error) {
		if err := j.check(args); err != nil {
			return err
		}
		if j.session, err = c.connect(); err != nil {
			return err
		}
		defer j.Close()
		return j.keep(ctx)
	})
	j.like.add(cmd)
	f := cmd.Flags()
	f.StringVar(&j.format, "format", "token", "what the file holds: token, header, json")
	f.StringVar(&j.mode, "mode", "0600", "who may read the file: 0600, 0400, 0640 or 0440")
	f.StringVar(&j.signal, "signal", "", "after a change, send a signal to the process whose number is in a file: `HUP:PIDFILE`")
	f.StringVar(&j.run, "run", "", "after a change, run a `command` with sh")
	f.BoolVar(&j.once, "once", false, "write and end")
	f.BoolVar(&j.remove, "remove", false, "remove the files at the end")
	complete(cmd, "format", "token", "header", "json")
	return cmd
}

// check looks at the command line and at the places for the files, before any token is asked for.
func (j *fileJob) check(args []string) error {
	modes := map[string]fs.FileMode{"0600": 0o600, "0400": 0o400, "0640": 0o640, "0440": 0o440}
	mode, known := modes["0"+strings.TrimLeft(j.mode, "0")]
	switch {
	case !known:
		return usagef("--mode: give 0600, 0400, 0640 or 0440: a token is not for all")
	case !isFormat(j.format):
		return usagef("--format: give token, header or json")
	case j.once && j.remove:
		return usagef("--remove would remove at once what --once writes")
	}
	if name, file, _ := strings.Cut(j.signal, ":"); j.signal != "" && (signalNamed(name) == 0 || file == "") {
		return usagef("--signal: give a signal and a file, as in HUP:/run/app.pid")
	}
	paths := map[string]bool{}
	for i, arg := range args {
		path, credential, ok := assigned(arg)
		if !ok {
			return usagef("argument %d: give PATH=CREDENTIAL", i+1)
		}
		s, err := newSink(path, mode)
		if err != nil {
			return err
		}
		if paths[s.path] {
			return usagef("argument %d: there are two credentials for one file", i+1)
		}
		paths[s.path] = true
		j.sinks[credential] = append(j.sinks[credential], s)
	}
	return nil
}

// keep writes the files, and then again with each new token.
func (j *fileJob) keep(ctx context.Context) (err error) {
	names := slices.Sorted(maps.Keys(j.sinks))
	if j.latest, err = j.first(ctx, &j.like, names); err != nil {
		return err
	}
	if j.remove {
		defer j.clear()
	}
	if err := j.write(ctx, names...); err != nil || j.once {
		return err
	}
	f := j.followTokens(ctx, &j.like, names)
	defer f.Close()
	end := time.NewTimer(0)
	defer end.Stop()
	for {
		end.Reset(j.tellEnds(j.latest, j.told, time.Now()))
		select {
		case <-ctx.Done():
			return nil // that is how it ends
		case err := <-f.ended:
			return err
		case n := <-f.news:
			err = j.take(ctx, n)
		case <-end.C:
		}
		if err != nil {
			return err
		}
	}
}

// take writes a new token. That there is none is told.
func (j *fileJob) take(ctx context.Context, n renewal) error {
	if n.none != "" {
		j.note("%s; the file stays as it is", n.none)
		return nil
	}
	if n.token.Generation < j.latest[n.credential].Generation {
		return nil
	}
	j.latest[n.credential] = n.token
	return j.write(ctx, n.credential)
}

// write writes the files of credentials, and tells those who read them if that changed one.
func (j *fileJob) write(ctx context.Context, names ...string) error {
	one := false
	for _, name := range names {
		text, err := j.latest[name].text(j.format)
		if err != nil {
			return err
		}
		for _, s := range j.sinks[name] {
			changed, err := s.write(text)
			if err != nil {
				return err
			}
			one = one || changed
		}
	}
	if one {
		j.tell(ctx)
	}
	return nil
}

// tell tells the reader of the files.
func (j *fileJob) tell(ctx context.Context) {
	if name, file, _ := strings.Cut(j.signal, ":"); j.signal != "" {
		if err := signalPID(signalNamed(name), file); err != nil {
			j.note("--signal: %v", err)
		}
	}
	if j.run == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, j.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", j.run)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = j.out, j.errs, time.Second
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		j.note("--run: %v", err)
	} else if ctx.Err() != nil {
		j.note("--run: it took longer than --timeout, or was interrupted")
	}
}

// clear removes the files.
func (j *fileJob) clear() {
	for _, sinks := range j.sinks {
		for _, s := range sinks {
			if err := os.Remove(s.path); err != nil {
				j.note("%v", err)
			}
		}
	}
}
