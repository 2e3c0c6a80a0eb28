//go:build !linux

package brokertest

import (
	"net"
	"testing"
)

// Addr is a loopback address to listen on as often as a test likes until it ends. Here the port is free while nobody listens, so another
// process may get it then.
func Addr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("brokertest: take a port: %v", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
