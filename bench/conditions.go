package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Conditions are what figures depend on.
type Conditions struct {
	Time       time.Time         `json:"time"`
	Short      bool              `json:"short"` // a run that only shows that everything works
	Commit     string            `json:"commit"`
	Go         string            `json:"go"`
	Modules    map[string]string `json:"modules"` // module → version
	System     string            `json:"system"`  // operating system, kernel, architecture
	CPUs       int               `json:"cpus"`
	GOMAXPROCS int               `json:"gomaxprocs"`
	LoadBefore string            `json:"load_before"` // load average over 1, 5 and 15 minutes
	LoadAfter  string            `json:"load_after"`
}

const unknown = "unknown"

// conditions are those at the start.
func conditions(ctx context.Context, short bool) Conditions {
	c := Conditions{Time: time.Now().UTC(), Short: short, Commit: commit(ctx), Go: runtime.Version(), Modules: map[string]string{},
		System: runtime.GOOS + " " + firstWords("/proc/sys/kernel/osrelease", 1) + " " + runtime.GOARCH,
		CPUs:   runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0), LoadBefore: loadAverage()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return c
	}
	for _, m := range info.Deps {
		switch m.Path {
		case "google.golang.org/grpc", "google.golang.org/protobuf", "go.etcd.io/bbolt":
			c.Modules[m.Path] = m.Version
		}
	}
	return c
}

func (c *Conditions) end() { c.LoadAfter = loadAverage() }

// commit asks git, as "go run" puts no revision into the binary.
func commit(ctx context.Context) string {
	text, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return unknown
	}
	return strings.TrimSpace(string(text))
}

func loadAverage() string { return firstWords("/proc/loadavg", 3) }

// firstWords reads the first words of a file.
func firstWords(path string, n int) string {
	text, err := os.ReadFile(path)
	words := strings.Fields(string(text))
	if err != nil || len(words) < n {
		return unknown
	}
	return strings.Join(words[:n], " ")
}
