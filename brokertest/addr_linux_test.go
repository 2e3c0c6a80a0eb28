package brokertest_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tokenbroker/tokenbroker/brokertest"
)

// alone binds a port and shares it with nobody, as the system does for who asks for any port.
func alone(t *testing.T, addr string) error {
	t.Helper()
	at := netip.MustParseAddrPort(addr)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())})
}

func TestAPortIsKeptWhileNobodyListens(t *testing.T) {
	var addr string
	t.Run("until the test ends", func(t *testing.T) {
		addr = brokertest.Addr(t)
		for range 3 {
			if err := alone(t, addr); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("got %v while nobody listens, want that the port is taken", err)
			}
			if c, err := net.Dial("tcp", addr); err == nil {
				_ = c.Close()
				t.Error("somebody answers")
			}
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := net.Listen("tcp", addr); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("got %v of a second listener, want that the port is taken", err)
			}
			_ = l.Close()
		}
	})
	if err := alone(t, addr); err != nil {
		t.Errorf("got %v when the test was over", err)
	}
}

func TestAListenerThatEndedHasItsPortBack(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true, Web: true})
	addr, web := b.Daemon.Addr().String(), b.WebURL
	b.Shutdown()
	if err := alone(t, addr); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got %v while the broker is away, want that nobody can take its port", err)
	}
	b.Restart()
	if b.Daemon.Addr().String() != addr || b.WebURL != web {
		t.Errorf("got %s, %s, want the addresses of before", b.Daemon.Addr(), b.WebURL)
	}
}
