//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// onOneThread keeps the caller on its thread: the kernel ends a child that goes with its parent when the thread that made it ends.
func onOneThread() (undo func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}

// exitStatus is the exit status of a child as a shell gives it: 128 and the signal, if one ended it.
func exitStatus(err error, state *os.ProcessState) int {
	if state == nil {
		return exitOther
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended && state.ExitCode() == 0 {
		return exitOther
	}
	return state.ExitCode()
}
