//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// become makes this process the command: it keeps its number, and nothing of us is left.
func become(path string, argv, env []string) error {
	return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, argv, env)} // it returns only if it failed
}

// running is the command while it runs.
type running struct {
	cmd   *exec.Cmd
	group bool          // it has a process group of its own
	done  chan struct{} // closed when it has ended
	exit  int           // after that
}

// supervise runs the command until it ends.
func (j *execJob) supervise(ctx context.Context, path string, names []string) error {
	defer onOneThread()()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT)
	defer signal.Stop(signals)
	r, err := j.start(path)
	if err != nil {
		return j.notRun(err)
	}
	f := j.followTokens(ctx, &j.like, names)
	defer f.Close()
	end := time.NewTimer(0)
	defer end.Stop()
	for {
		end.Reset(j.tellEnds(j.latest, j.told, time.Now()))
		select {
		case <-end.C:
		case <-r.done:
			if r.exit != 0 {
				return &childExit{r.exit}
			}
			return nil
		case s := <-signals:
			r.pass(s)
		case err := <-f.ended:
			j.note("%v; the command keeps the tokens that it has", err)
		case n := <-f.news:
			if !j.take(n) {
				continue
			}
			if j.signal != 0 {
				_ = r.cmd.Process.Signal(j.signal)
			}
			if j.renewal != "restart" || !r.stop(signals, j.grace) {
				continue
			}
			if r, err = j.start(path); err != nil {
				return j.notRun(err)
			}
		}
	}
}

// start starts the command. The goroutine that waits for it ends with it.
func (j *execJob) start(path string) (*running, error) {
	r := &running{group: !terminal(j.in), done: make(chan struct{})}
	r.cmd = &exec.Cmd{Path: path, Args: j.command, Env: j.environ(), Stdin: j.in, Stdout: j.out, Stderr: j.errs, SysProcAttr: child(r.group)}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(r.done)
		r.exit = exitStatus(r.cmd.Wait(), r.cmd.ProcessState)
	}()
	return r, nil
}

// pass hands on a signal. On a terminal, what the keyboard sends has come to the command by itself.
func (r *running) pass(s os.Signal) {
	keyboard := s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH || s == syscall.SIGCONT
	if sig, ok := s.(syscall.Signal); ok && (r.group || !keyboard) {
		r.kill(sig)
	}
}

func (r *running) kill(sig syscall.Signal) {
	if r.group {
		_ = syscall.Kill(-r.cmd.Process.Pid, sig)
		return
	}
	_ = r.cmd.Process.Signal(sig)
}

// stop ends the command for a restart. It reports false if somebody ended it meanwhile, who wants no other one.
func (r *running) stop(signals <-chan os.Signal, grace time.Duration) bool {
	select {
	case <-r.done:
		return false // it had ended by itself
	default:
	}
	r.kill(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	again := true
	for {
		select {
		case <-r.done:
			if r.group {
				r.kill(syscall.SIGKILL) // what it has left behind holds the old token
			}
			return again
		case <-timer.C:
			r.kill(syscall.SIGKILL)
		case s := <-signals:
			again = again && s != syscall.SIGTERM && s != syscall.SIGINT && s != syscall.SIGQUIT
			r.pass(s)
		}
	}
}
