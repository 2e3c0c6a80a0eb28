package terminal

import (
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// glance is how long, in milliseconds, a keyboard waits for a key before it looks whether it was closed.
const glance = 100

// keyboard reads a terminal and can be told to stop, which a plain Read of one can't.
type keyboard struct {
	file   *os.File
	once   sync.Once
	closed chan struct{}
}

func newKeyboard(f *os.File) *keyboard { return &keyboard{file: f, closed: make(chan struct{})} }

// Read implements io.Reader. It returns io.EOF once the keyboard is closed or the terminal is gone.
func (k *keyboard) Read(p []byte) (int, error) {
	for {
		select {
		case <-k.closed:
			return 0, io.EOF
		default:
		}
		ready := []unix.PollFd{{Fd: int32(k.file.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, glance)
		switch {
		case err == unix.EINTR || n == 0:
		case err != nil:
			return 0, err
		default:
			return k.file.Read(p)
		}
	}
}

// Close implements io.Closer. The file itself stays open: it is the process's.
func (k *keyboard) Close() error {
	k.once.Do(func() { close(k.closed) })
	return nil
}

// watchSize tells when the terminal's window changes its size.
func watchSize() (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGWINCH)
	return ch, func() { signal.Stop(ch) }
}
