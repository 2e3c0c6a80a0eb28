package harden

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// undumpable keeps other processes of the same user from tracing this one and from reading its memory, and the kernel from piping a core
// dump to a program, which no limit keeps it from (prctl(2), PR_SET_DUMPABLE).
func undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep the process's memory to itself: %w", err)
	}
	return nil
}
