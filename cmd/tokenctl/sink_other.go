//go:build !unix

package main

import (
	"errors"
	"io/fs"
	"syscall"
)

func mine(fs.FileInfo) bool { return true }

func syncFolder(string) error { return nil }

func signalNamed(string) syscall.Signal { return 0 }

func signalPID(syscall.Signal, string) error { return errors.ErrUnsupported }
