package subject

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tokenbroker/tokenbroker/daemon"
)

// subject is a server as its process sees it.
type subject interface {
	// addr is where it serves.
	addr() string
	// replies takes over what the references answer.
	replies(Order) error
	// publish sends something new to every stream, and says when.
	publish(context.Context) (Report, error)
	// close ends it.
	close() error
}

// Serve is the main function of a server process: it takes the configuration, then orders, from in until that ends.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	orders, reports := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var c Config
	if err := orders.Decode(&c); err != nil {
		return err
	}
	switch {
	case c.GOGC != 0:
		debug.SetGCPercent(c.GOGC)
	case c.Role != Reference:
		debug.SetGCPercent(daemon.GCPercent)
	}
	stop, err := profile(c.Profile)
	if err != nil {
		return reports.Encode(Report{Error: err.Error()}) // the driver tells
	}
	defer stop()
	s, err := open(ctx, c)
	if err != nil {
		return reports.Encode(Report{Error: err.Error()}) // the driver tells
	}
	err = reports.Encode(Report{Addr: s.addr()})
	for err == nil {
		var o Order
		if err = orders.Decode(&o); err == nil {
			err = reports.Encode(obey(ctx, s, o))
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, s.close())
}

// profile begins a CPU profile, if there is a file for it.
func profile(file string) (stop func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close() // what is lost is a profile
	}, nil
}

func open(ctx context.Context, c Config) (subject, error) {
	switch c.Role {
	case Reference, Tuned:
		return openReference(ctx, c)
	case Product:
		return openProduct(ctx, c)
	}
	return nil, fmt.Errorf("unknown role %q", c.Role)
}

func obey(ctx context.Context, s subject, o Order) Report {
	r, err := do(ctx, s, o)
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

func do(ctx context.Context, s subject, o Order) (Report, error) {
	switch o.Do {
	case DoStats:
		r, err := stats(o.GC)
		if p, ok := s.(*product); ok && err == nil {
			r.Exchanges = p.upstream.count()
		}
		return r, err
	case DoReplies:
		return Report{}, s.replies(o)
	case DoPublish:
		return s.publish(ctx)
	}
	return Report{}, fmt.Errorf("unknown order %q", o.Do)
}

// stats looks at the process itself.
func stats(collect bool) (Report, error) {
	var r Report
	if collect {
		runtime.GC()
		debug.FreeOSMemory()
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return r, err
	}
	r.CPU = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if !collect {
		return r, nil
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.Heap = m.HeapAlloc
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return r, err
	}
	r.RSS, err = residentOf(string(text), os.Getpagesize())
	return r, err
}

// residentOf reads the resident set, in bytes, out of /proc/PID/statm (proc(5)): sizes in pages, the second is the resident one.
func residentOf(statm string, page int) (int64, error) {
	fields := strings.Fields(statm)
	if len(fields) < 2 {
		return 0, fmt.Errorf("statm has %d fields, 2 or more were expected", len(fields))
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("statm: %w", err)
	}
	return pages * int64(page), nil
}
