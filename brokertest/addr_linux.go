package brokertest

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Addr is a loopback address to listen on as often as a test likes until it ends. The port is taken all the time, also while nobody listens:
// the system gives it to nobody who asks for any port, be it to listen or to connect. Who names it may listen there, as net.Listen does;
// meanwhile who connects is refused.
func Addr(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("brokertest: take a port: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	// What is bound and does not listen shares its port with a listener, if both allow it.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatalf("brokertest: share a port: %v", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatalf("brokertest: take a port: %v", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatalf("brokertest: look at a port: %v", err)
	}
	at := name.(*unix.SockaddrInet4)
	return (&net.TCPAddr{IP: at.Addr[:], Port: at.Port}).String()
}
