package fleet_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// lookout looks at what others could see of the processes of a test.
type lookout struct {
	looks, seen int             // how often, and at how many processes in all
	expected    int             // tokens in the environment that is for them
	found       map[string]bool // what must not be
}

// watch looks until ctx ends.
func (l *lookout) watch(ctx context.Context) {
	l.found = map[string]bool{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		l.look()
		<-tick.C
	}
}

// look looks at all descendants once.
func (l *lookout) look() {
	l.looks++
	for _, pid := range descendants() {
		l.seen++
		argv, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if holdsToken(argv) {
			l.found["command line of "+program(argv)] = true
		}
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		for entry := range bytes.SplitSeq(env, []byte{0}) {
			name, _, _ := strings.Cut(string(entry), "=")
			switch {
			case !holdsToken(entry):
			case name == "API_TOKEN":
				l.expected++
			default:
				l.found["environment of "+program(argv)+", variable "+name] = true
			}
		}
	}
}

// holdsToken reports whether there is a token of the sandbox in something.
func holdsToken(b []byte) bool { return bytes.Contains(b, []byte(sandbox.AccessPrefix)) }

// program is the first word of a command line, which holds no token.
func program(argv []byte) string {
	name, _, _ := bytes.Cut(argv, []byte{0})
	return filepath.Base(string(name))
}

// descendants are the processes that come of this one.
func descendants() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(stat), ") ") // after a name that may hold anything but this
		if f := strings.Fields(rest); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], pid)
		}
	}
	for queue := []int{os.Getpid()}; len(queue) > 0; queue = queue[1:] {
		pids = append(pids, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return pids
}

// written searches all files of a site for tokens, and says how many there are.
func (s *site) written() (files int) {
	s.t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if holdsToken(b) {
			s.t.Errorf("there is a token in %s", strings.TrimPrefix(path, s.dir))
		}
		return err
	})
	must(s.t, err)
	return files
}
