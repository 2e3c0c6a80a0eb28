package main

import "syscall"

// child is how a command runs for the caller: it does not outlive us, and may have a process group of its own.
func child(group bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: group, Pdeathsig: syscall.SIGKILL}
}
