package attack_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
)

// ask gets a path of the ops listener.
func (s *site) ask(path string) (int, string) {
	s.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.ops+path, nil)
	must(s.t, err)
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(s.t, err)
	return resp.StatusCode, string(text)
}

// metric is the sum of all series of /metrics whose line begins with the text and holds the pieces.
func (s *site) metric(begins string, holds ...string) float64 {
	s.t.Helper()
	_, text := s.ask("/metrics")
	return sum(text, begins, holds...)
}

func sum(text, begins string, holds ...string) (total float64) {
lines:
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, begins)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, h := range holds {
			if !strings.Contains(line, h) {
				continue lines
			}
		}
		f := strings.Fields(line)
		v, _ := strconv.ParseFloat(f[len(f)-1], 64)
		total += v
	}
	return total
}

// memory watches what the broker has in memory.
type memory struct {
	pid    int
	before int64 // bytes
}

// memory notes how much the broker has in memory, and has the system measure the most that it has from now on. Where the system keeps the
// broker's memory from everybody but root, what counts is by how much it outgrows the most that it ever had.
func (s *site) memory() memory {
	s.t.Helper()
	pid := s.proc.cmd.Process.Pid
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return memory{pid, procStatus(s.t, pid, "VmHWM")}
	}
	return memory{pid, procStatus(s.t, pid, "VmRSS")}
}

// grew is by how much the broker has grown at its largest.
func (m memory) grew(t testing.TB) int64 { return procStatus(t, m.pid, "VmHWM") - m.before }

// atMost fails the test if the broker has grown by more.
func (m memory) atMost(t testing.TB, most int64) {
	t.Helper()
	got := m.grew(t)
	t.Logf("memory: %d MiB before, grew by %d MiB at most", m.before>>20, got>>20)
	if got > most {
		t.Errorf("the broker grew by %d MiB, want at most %d", got>>20, most>>20)
	}
}

// procStatus is a size of /proc/PID/status, in bytes.
func procStatus(t testing.TB, pid int, key string) int64 {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), key+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			must(t, err)
			return kb << 10
		}
	}
	t.Fatalf("no %s of process %d", key, pid)
	return 0
}
