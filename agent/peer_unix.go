//go:build linux || darwin

package agent

import (
	"fmt"
	"net"
)

// identifies says why peers of a Unix socket can't be told apart on this system; nil if they can.
func identifies() error { return nil }

// peerOf asks the kernel who connected.
func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	var found error
	if err := raw.Control(func(fd uintptr) { p, found = peerOfFD(int(fd)) }); err != nil {
		return Peer{}, err
	}
	if found != nil {
		return Peer{}, fmt.Errorf("ask who connected: %w", found)
	}
	return p, nil
}
