package server_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// on puts a frame on a stream.
func on(stream int, frame []byte) []byte {
	binary.BigEndian.PutUint32(frame[5:], uint32(stream))
	return frame
}

func begin(stream int) []byte { return on(stream, frameOf(1, 4, 30)) }

// story is a connection under a meter: what its client sends, and what the broker answers.
type story struct {
	client, broker net.Conn
	why            atomic.Value // of the cut
}

// tell plays a connection until the story ends, and returns why it was cut; nil = it was not.
func tell(t *testing.T, metered func(net.Conn, server.Limits, func(server.RefusedReason)) net.Conn, play func(*story)) any {
	t.Helper()
	s := &story{}
	here, there := net.Pipe()
	s.client, s.broker = there, metered(here, server.Limits{}, func(r server.RefusedReason) { s.why.Store(r) })
	go func() { _, _ = io.Copy(io.Discard, there) }()
	go func() { _, _ = io.Copy(io.Discard, s.broker) }()
	s.send([]byte(http2.ClientPreface))
	play(s)
	_, _ = s.broker.Close(), there.Close()
	synctest.Wait()
	return s.why.Load()
}

// send returns once the broker has read it.
func (s *story) send(frames ...[]byte) {
	_, _ = s.client.Write(slices.Concat(frames...))
	synctest.Wait()
}

func (s *story) begin(from, calls int) {
	for i := range calls {
		s.send(begin(2*(from+i) + 1))
	}
}

func TestAClientThatBeginsCallsAndDoesNotFinishThemIsCut(t *testing.T) {
	ends := map[string]func(s *story, stream int){
		"its end":            func(s *story, stream int) { s.send(on(stream, frameOf(0, 1, 30))) },
		"an end of its own":  func(s *story, stream int) { s.send(on(stream, frameOf(0, 0, 30)), on(stream, frameOf(0, 1, 0))) },
		"trailers":           func(s *story, stream int) { s.send(on(stream, frameOf(1, 5, 30))) },
		"a reset":            func(s *story, stream int) { s.send(on(stream, frameOf(3, 0, 4))) },
		"the broker's reset": func(s *story, stream int) { _, _ = s.broker.Write(on(stream, frameOf(3, 0, 4))) },
	}
	for name, end := range ends {
		synctest.Test(t, func(t *testing.T) {
			if why := tell(t, server.Metered, func(s *story) {
				for i := range 300 {
					s.begin(i, 1)
					end(s, 2*i+1)
				}
				s.begin(300, 16)
				time.Sleep(time.Hour)
			}); why != nil {
				t.Errorf("calls that end with %s, and 16 that do not: got it cut for %v", name, why)
			}
		})
	}
	for _, tt := range []struct {
		name        string
		metered     func(net.Conn, server.Limits, func(server.RefusedReason)) net.Conn
		stays, ends time.Duration
	}{
		{"usually", server.Metered, 14 * time.Second, 16 * time.Second}, {"while memory is short", server.MeteredWhileShort, 900 * time.Millisecond, 2 * time.Second},
	} {
		for name, more := range map[string]func(s *story){
			"nothing":            func(*story) {},
			"a piece of each":    func(s *story) { s.send(on(1, frameOf(0, 0, 3)), on(33, frameOf(0, 0, 3))) },
			"others that finish": func(s *story) { s.send(begin(101), on(101, frameOf(0, 1, 9))) },
		} {
			synctest.Test(t, func(t *testing.T) {
				why := tell(t, tt.metered, func(s *story) {
					s.begin(0, 17)
					more(s)
					time.Sleep(tt.stays)
					if why := s.why.Load(); why != nil {
						t.Errorf("%s, with %s: it was cut for %v before %v", tt.name, name, why, tt.stays)
					}
					time.Sleep(tt.ends - tt.stays)
				})
				if why != server.RefusedUnfinished {
					t.Errorf("%s, with %s: got %v after %v, want it cut for calls that are not finished", tt.name, name, why, tt.ends)
				}
			})
		}
	}
}

// However many are on their way at a time: none of them is for long.
func TestABusyClientIsNotCutForCallsOnTheirWay(t *testing.T) {
	for _, metered := range []func(net.Conn, server.Limits, func(server.RefusedReason)) net.Conn{server.Metered, server.MeteredWhileShort} {
		synctest.Test(t, func(t *testing.T) {
			if why := tell(t, metered, func(s *story) {
				s.begin(0, 200)
				for i := range 1000 {
					s.begin(200+i, 1)
					s.send(on(2*i+1, frameOf(0, 1, 30)))
					time.Sleep(4 * time.Millisecond)
				}
			}); why != nil {
				t.Errorf("got it cut for %v", why)
			}
		})
	}
}

// TestS10CallsWithoutTheirRequestsHoldNoMemory begins as many calls as a connection may have, on a whole broker, and sends none of their requests.
func TestS10CallsWithoutTheirRequestsHoldNoMemory(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true, Limits: server.Limits{CallDeadline: 10 * time.Second}})
	b.AddClientCredentials("example/api", "files.read")
	ask := newRequest(t, tokenbrokerv1.TokenService_GetToken_FullMethodName, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	mallory := dialLean(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker("mallory"), Client: true}))
	block := ask.first
	for i := range 1000 {
		must(t, mallory.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block, EndHeaders: true}))
		block = ask.again
	}
	must(t, mallory.out.Flush())
	mallory.listenTo(nil) // until it is cut
	if n := metric(t, b, "tokenbroker_connections_refused_total", `reason="unfinished"`); n != 1 {
		t.Errorf("counted %v connections with unfinished calls, want 1", n)
	}
	if err := dialLean(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker("other"), Client: true})).call(ask, 1, 1); err != nil {
		t.Errorf("got %v for another client, want it served", err)
	}
}
