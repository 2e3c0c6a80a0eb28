package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// modes are those of the socket and its folder. Who may connect is decided by rules, of whoever does: the modes keep the rest from trying.
func modes(shared bool) (folder, socket fs.FileMode) {
	if shared {
		return 0o711, 0o666
	}
	return 0o700, 0o600
}

// listenUnix makes the socket, in place of one that an agent left behind which is gone.
func listenUnix(ctx context.Context, path string, shared bool) (*net.UnixListener, error) {
	folder, socket := modes(shared)
	if err := makeFolder(filepath.Dir(path), folder); err != nil {
		return nil, err
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the socket: %w", err)
	}
	if err := os.Chmod(path, socket); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("make the socket: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// makeFolder makes the socket's folder, or looks whether the one that is there keeps others from putting a socket of theirs in its place.
func makeFolder(path string, mode fs.FileMode) error {
	if err := checkWay(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err == nil {
		return os.Chmod(path, mode) // whatever the umask is
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the socket's folder: %w", err)
	}
	if err := checkFolder(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the socket's folder: %w", err)
	}
	return adapt(path, info, mode)
}

// adapt changes the mode of a folder that an agent made, when other rules ask for another one.
func adapt(path string, info fs.FileInfo, mode fs.FileMode) error {
	owner, known := ownerOf(info)
	was := info.Mode().Perm()
	if !known || owner != ownUID() || was == mode || was != 0o700 && was != 0o711 {
		return nil
	}
	return os.Chmod(path, mode)
}

// removeStale removes a socket that nobody answers on.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s is there and is no socket", path)
	}
	dialer := net.Dialer{Timeout: 2 * time.Second}
	c, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("another agent answers on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s is there, and whether an agent answers on it is not known: %w", path, err)
	}
	return os.Remove(path)
}
