package grant_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

// rawServer speaks TCP on loopback: each connection is handled by hand. It keeps what was read.
type rawServer struct {
	addr  string
	mu    sync.Mutex
	conns int
	read  bytes.Buffer
}

func serveRaw(t *testing.T, handle func(c net.Conn, s *rawServer)) *rawServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c, s)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return s
}

// request reads one request and keeps it.
func (s *rawServer) request(c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read.Write(body)
}

func (s *rawServer) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// spent is how often the refresh token arrived.
func (s *rawServer) spent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.read.String(), refreshCanary)
}

func (s *rawServer) profile() provider.Profile {
	return provider.Profile{TokenEndpoint: "http://" + s.addr + "/token", InsecureLoopback: true}
}
