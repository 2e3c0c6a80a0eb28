//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mine reports whether a folder is of this user, or of root.
func mine(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}

// syncFolder makes sure that a rename outlasts a loss of power.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// signalNamed is a signal by its name, with SIG or without; 0 = there is none.
func signalNamed(name string) syscall.Signal {
	return unix.SignalNum("SIG" + strings.TrimPrefix(name, "SIG"))
}

// signalPID sends a signal to the process whose number is in a file.
func signalPID(sig syscall.Signal, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(data)))
	if err != nil || pid <= 1 { // 0, 1 and what is negative would be others than meant
		return fmt.Errorf("%s holds no number of a process", file)
	}
	return syscall.Kill(pid, sig)
}
