// Package subject runs the servers that are measured, each in a process of its own: the benchmark's own binary, started again in
// another role. Driver and server talk in lines of JSON over the server's standard input and output; when the input ends, because the
// driver closed it or died, the server ends too.
//
// There are three roles. [Reference] is a bare grpc-go server: mutual TLS 1.3, generated code, the same reply for everybody, no logic.
// [Tuned] is the same server with the options of grpc-go that pay for this load. [Product] is the whole broker as package daemon
// assembles it, with policy, metrics, an audit log in a file, a store on disk, and the sandbox for a provider.
package subject

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Role is what a server process is.
type Role string

// The roles.
const (
	Reference Role = "reference"
	Tuned     Role = "tuned"
	Product   Role = "product"
)

// Flag makes a process of the benchmark's binary a server, if it is the only argument.
const Flag = "serve-subject"

// Config is what a server process is told at its start.
type Config struct {
	Role    Role
	Site    Site
	Store   string // folder of the store and the audit log; product only
	Seed    Seed   // what the store gets before the broker opens it; product only
	GOGC    int    // 0 = as the role has it
	Profile string // file for a CPU profile of the process's whole life; "" = none
}

// Order is what the driver asks of a server.
type Order struct {
	Do     string `json:"do"`
	GC     bool   `json:"gc,omitempty"`     // before stats: collect garbage and give memory back
	Get    []byte `json:"get,omitempty"`    // reply of GetToken, for the references
	Update []byte `json:"update,omitempty"` // message of Subscribe, for the references
}

// What a server can be asked.
const (
	DoStats   = "stats"
	DoReplies = "replies"
	DoPublish = "publish"
)

// Report is what a server answers.
type Report struct {
	Error string `json:"error,omitempty"`
	Addr  string `json:"addr,omitempty"` // the first report alone

	CPU       time.Duration `json:"cpu,omitempty"` // user and system, of the process since its start
	RSS       int64         `json:"rss,omitempty"`
	Heap      uint64        `json:"heap,omitempty"`
	Exchanges Exchanges     `json:"exchanges,omitzero"`

	Answered  int64 `json:"answered,omitempty"`  // Unix nanoseconds; when the provider's answer was there
	Published int64 `json:"published,omitempty"` // when the first stream was about to be served
}

// startFor bounds how long a server may take to begin, which includes filling its store.
const startFor = 10 * time.Minute

// Process is a server that runs.
type Process struct {
	Addr    string
	Started time.Time // just before the process was begun

	cmd     *exec.Cmd
	in      io.WriteCloser
	reports *json.Decoder
	ended   sync.Once
}

// Start starts a server and waits until it serves. It dies with ctx.
func Start(ctx context.Context, c Config) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, Flag)
	cmd.Stderr, cmd.WaitDelay = os.Stderr, 10*time.Second
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, in: in, reports: json.NewDecoder(bufio.NewReader(out)), Started: time.Now()}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	bound := time.AfterFunc(startFor, func() { _ = cmd.Process.Kill() })
	defer bound.Stop()
	first, err := p.send(c)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.Role, err), p.Stop())
	}
	p.Addr = first.Addr
	return p, nil
}

// Ask gives an order and waits for the report.
func (p *Process) Ask(o Order) (Report, error) {
	r, err := p.send(o)
	if err != nil {
		return r, fmt.Errorf("%s: %w", o.Do, err)
	}
	return r, nil
}

func (p *Process) send(v any) (Report, error) {
	var r Report
	line, err := json.Marshal(v)
	if err != nil {
		return r, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return r, err
	}
	if err := p.reports.Decode(&r); err != nil {
		return r, fmt.Errorf("the server process ended: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// CPU is the processor time that the server has used.
func (p *Process) CPU() (time.Duration, error) {
	r, err := p.Ask(Order{Do: DoStats})
	return r.CPU, err
}

// stopFor bounds how long a server may take to end.
const stopFor = 30 * time.Second

// Stop ends the server in order and waits for it. One that has ended is left alone.
func (p *Process) Stop() error {
	return p.once(func() error {
		_ = p.in.Close()
		bound := time.AfterFunc(stopFor, func() { _ = p.cmd.Process.Kill() })
		defer bound.Stop()
		return p.cmd.Wait()
	})
}

// Kill ends the server on the spot, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.once(func() error {
		_ = p.cmd.Process.Kill()
		_ = p.in.Close()
		_ = p.cmd.Wait() // says that it was killed
		return nil
	})
}

func (p *Process) once(end func() error) (err error) {
	p.ended.Do(func() { err = end() })
	return err
}
