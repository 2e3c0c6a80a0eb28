package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

// harden refuses settings of the environment that would write secrets somewhere, and keeps the memory of the process to itself.
func harden() error {
	if os.Getenv("GRPC_BINARY_LOG_FILTER") != "" {
		return errors.New("GRPC_BINARY_LOG_FILTER is set: it would write every token to a file; unset it")
	}
	if strings.Contains(os.Getenv("GODEBUG"), "http2debug") {
		return errors.New("GODEBUG has http2debug: it would print every token; take it out")
	}
	if trace := os.Getenv("GOTRACEBACK"); slices.Contains([]string{"crash", "wer"}, trace) {
		return fmt.Errorf("GOTRACEBACK is %s: a crash would leave a core dump with every token; unset it", trace)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	return undumpable()
}
