//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	quiet    = 200             // milliseconds without a byte: what was pasted is over
	drainFor = 5 * time.Second // at most, for a key that is held down
)

// drain takes what waits at a raw terminal, so that no shell reads it when the terminal is restored. It reports whether that was more than
// ends of lines. It reads, since flushing the terminal would leave what the kernel has not passed on to it yet.
func drain(tty *os.File) (more bool) {
	b := make([]byte, 4096)
	for end := time.Now().Add(drainFor); time.Now().Before(end); {
		ready := []unix.PollFd{{Fd: int32(tty.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, quiet)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			break
		}
		if n, err = tty.Read(b); err != nil {
			break
		}
		more = more || len(bytes.Trim(b[:n], "\r\n")) > 0
	}
	clear(b)
	return more
}
