//go:build unix

package main

import "syscall"

// detached keeps a Ctrl-C on the terminal from a browser that was opened.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
