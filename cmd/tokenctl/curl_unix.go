//go:build unix

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// curlRun is one run of curl. What it prints while its last answer is a refusal is kept back, so that a second run can take its place.
type curlRun struct {
	heads *heads
	exit  int
	shown bool // some of its standard output was passed on
	held  []heldOutput
	size  int
}

type heldOutput struct {
	to   io.Writer
	data []byte
}

// mostHeld is how much of an answer is kept back.
const mostHeld = 1 << 20

// once runs curl with a token.
func (j *curlJob) once(ctx context.Context, token *tokenbrokerv1.Token) (*curlRun, error) {
	defer onOneThread()()
	run := &curlRun{heads: j.heads()}
	var p pipes
	defer p.close()
	secret, dump, out, errs := p.pipe(), p.pipe(), p.pipe(), p.pipe()
	if p.err != nil {
		return nil, p.err
	}
	cmd := exec.CommandContext(ctx, "curl", j.args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = j.in, out.w, errs.w, []*os.File{secret.r, dump.w}
	cmd.SysProcAttr = child(false)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.handedOver(secret.r, dump.w, out.w, errs.w)
	_, err := io.WriteString(secret.w, header(token)+"\n")
	p.handedOver(secret.w)
	if err != nil && !errors.Is(err, syscall.EPIPE) { // curl may end before it reads
		err = errors.Join(err, cmd.Process.Kill())
	} else {
		err = run.relay(dump.r, out.r, errs.r, j.out, j.errs)
	}
	run.exit = exitStatus(cmd.Wait(), cmd.ProcessState)
	return run, err
}

// relay passes on what curl prints. The heads are read before it is decided what to do with what was printed after them.
func (run *curlRun) relay(dump, out, errs *os.File, stdout, stderr io.Writer) error {
	sources := []*source{{file: dump}, {file: out}, {file: errs}}
	buf := make([]byte, 32<<10)
	for {
		ready, err := poll(sources)
		if err != nil || ready < 0 {
			return err
		}
		data, err := sources[ready].read(buf)
		if err != nil {
			return err
		}
		switch ready {
		case 0:
			run.heads.take(data)
			continue
		case 1:
			err = run.print(sources[0], stdout, data, true)
		default:
			err = run.print(sources[0], stderr, data, false)
		}
		if err != nil {
			return err
		}
	}
}

// print passes something on, or keeps it back.
func (run *curlRun) print(dump *source, to io.Writer, data []byte, answer bool) error {
	if len(data) == 0 {
		return nil
	}
	more := make([]byte, 32<<10)
	for head, err := dump.read(more); len(head) > 0 && err == nil; head, err = dump.read(more) {
		run.heads.take(head) // written before what was printed
	}
	if run.heads.refused() == 401 && run.size+len(data) <= mostHeld && !run.shown {
		run.held, run.size = append(run.held, heldOutput{to, append([]byte(nil), data...)}), run.size+len(data)
		return nil
	}
	if err := run.flush(); err != nil {
		return err
	}
	run.shown = run.shown || answer
	_, err := to.Write(data)
	return err
}

// flush passes on what was kept back.
func (run *curlRun) flush() error {
	for _, h := range run.held {
		if _, err := h.to.Write(h.data); err != nil {
			return err
		}
	}
	run.held, run.size = nil, 0
	return nil
}

// source is the end of a pipe that is read when there is something in it.
type source struct {
	file *os.File
	over bool
}

// read reads what is there, without waiting. Nothing and no error is what an empty pipe gives.
func (s *source) read(buf []byte) (data []byte, err error) {
	if s.over {
		return nil, nil
	}
	raw, err := s.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n int
	control := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), buf) })
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil, nil
	case err != nil || control != nil:
		return nil, errors.Join(err, control)
	}
	s.over = n == 0
	return buf[:max(n, 0)], nil
}

// poll waits until one of the sources can be read, and says which, the first before the others; -1 if all are over.
func poll(sources []*source) (ready int, err error) {
	fds := make([]unix.PollFd, len(sources))
	open := false
	for i, s := range sources {
		fds[i].Fd = -1
		if s.over {
			continue
		}
		raw, err := s.file.SyscallConn()
		if err != nil {
			return -1, err
		}
		if err := raw.Control(func(fd uintptr) { fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN} }); err != nil {
			return -1, err
		}
		open = true
	}
	if !open {
		return -1, nil
	}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return -1, err
		}
		for i, fd := range fds {
			if fd.Fd >= 0 && fd.Revents != 0 {
				return i, nil
			}
		}
	}
}

// pipes are closed together.
type pipes struct {
	open []*os.File
	err  error
}

type pipeEnds struct{ r, w *os.File }

func (p *pipes) pipe() pipeEnds {
	r, w, err := os.Pipe()
	if err != nil {
		p.err = err
		return pipeEnds{}
	}
	p.open = append(p.open, r, w)
	return pipeEnds{r, w}
}

// handedOver closes what a child has now.
func (p *pipes) handedOver(files ...*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func (p *pipes) close() { p.handedOver(p.open...) }
