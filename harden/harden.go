// Package harden keeps the memory of a process that holds secrets to itself. It refuses settings of the environment that would write what
// goes through the process somewhere, switches core dumps off, and, where the system can, keeps other processes of the same user from
// reading its memory. It can do nothing against root.
package harden

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Process hardens this process. Call it before there is a secret in it; on an error there must be none.
func Process() error {
	if os.Getenv("GRPC_BINARY_LOG_FILTER") != "" {
		return errors.New("GRPC_BINARY_LOG_FILTER is set: it would write every token to a file; unset it")
	}
	if strings.Contains(os.Getenv("GODEBUG"), "http2debug") {
		return errors.New("GODEBUG has http2debug: it would print every token; take it out")
	}
	if trace := os.Getenv("GOTRACEBACK"); slices.Contains([]string{"crash", "wer"}, trace) {
		return fmt.Errorf("GOTRACEBACK is %s: a crash would leave a core dump with every token; unset it", trace)
	}
	if err := noCores(); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	return undumpable()
}
