//go:build unix

package harden

import "syscall"

// noCores switches core files off.
func noCores() error { return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) }
