package server_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
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

// takeBack begins a call and takes it back.
func (w *lean) takeBack(r *request) error {
	if err := w.send(r); err != nil {
		return err
	}
	return w.framer.WriteRSTStream(w.stream-2, http2.ErrCodeCancel)
}

func TestS09AClientThatTakesBackCallsWithoutEndIsCut(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true, Limits: server.Limits{StreamsPerConn: 500, CallsPerSecond: 1e6}})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	ask := newRequest(t, tokenbrokerv1.TokenService_GetToken_FullMethodName, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	flooder := dialLean(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker("flooder"), Client: true}))
	gone := make(chan struct{})
	go func() { defer close(gone); flooder.listenTo(nil) }()
	var err error
	sent := 0
	for ; err == nil && sent < 1_000_000; sent++ {
		err = flooder.takeBack(ask)
	}
	if err == nil {
		t.Fatal("a million calls were taken back on one connection")
	}
	<-gone
	if n := metric(t, b, "tokenbroker_connections_refused_total", `reason="flood"`); n != 1 {
		t.Errorf("counted %v floods, want 1", n)
	}
	modest := dialLean(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker("modest"), Client: true}))
	for range 400 { // within what may be
		must(t, modest.takeBack(ask))
	}
	must(t, modest.out.Flush())
	if err := modest.call(newRequestAgain(ask), 1, 1); err != nil {
		t.Errorf("got %v for a client that took back a few calls, want it served", err)
	}
}

// TestAClientThatBeginsMoreThanItMayWithoutEndIsCut leaves the answers to as many calls as it may have at once waiting, since it opens no
// window, and goes on.
func TestAClientThatBeginsMoreThanItMayWithoutEndIsCut(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true, Limits: server.Limits{StreamsPerConn: 500, CallsPerSecond: 1e6}})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	ask := newRequest(t, tokenbrokerv1.TokenService_GetToken_FullMethodName, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	flooder := dialLean(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker("flooder"), Client: true}))
	must(t, flooder.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	var err error
	sent := 0
	for ; err == nil && sent < 1_000_000; sent++ {
		err = flooder.send(ask)
	}
	if err == nil {
		t.Fatal("a million calls were begun on one connection that takes no answer")
	}
	if n := metric(t, b, "tokenbroker_connections_refused_total", `reason="flood"`); n != 1 {
		t.Errorf("counted %v floods, want 1", n)
	}
	eager := dialLean(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker("eager"), Client: true}))
	for range 600 { // before it reads how many it may
		must(t, eager.send(ask))
	}
	must(t, eager.out.Flush())
	for ended := 0; ended < 600; {
		f, err := eager.framer.ReadFrame()
		must(t, err)
		if h, ok := f.(*http2.HeadersFrame); ok && h.StreamEnded() || f.Header().Type == http2.FrameRSTStream {
			ended++
		}
	}
	if err := eager.call(newRequestAgain(ask), 1, 1); err != nil {
		t.Errorf("got %v for a client that was eager once, want it served", err)
	}
}

// listenTo reads frames until the connection ends.
func (w *lean) listenTo(see func(http2.Frame)) {
	for {
		f, err := w.framer.ReadFrame()
		if err != nil {
			return
		}
		if see != nil {
			see(f)
		}
	}
}

// newRequestAgain is a request on a connection whose table holds its headers.
func newRequestAgain(r *request) *request {
	return &request{first: r.again, again: r.again, body: r.body}
}

func TestAClientThatSendsAndDoesNotReadIsHeldAndThenCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var why atomic.Value
		here, there := net.Pipe()
		c := server.Metered(here, server.Limits{}, func(r server.RefusedReason) { why.Store(r) })
		go func() { _, _ = c.Write(make([]byte, 100)) }() // nobody reads it
		var sent atomic.Int64
		go func() {
			payload := frameOf(0, 0, 16<<10)
			_, _ = there.Write([]byte(http2.ClientPreface))
			for {
				n, err := there.Write(payload)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		began := time.Now()
		_, err := io.Copy(io.Discard, c)
		if err == nil || why.Load() != server.RefusedBlocked {
			t.Errorf("got %v and %v, want it cut for not reading", err, why.Load())
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it was cut after %v, want 10 s", took)
		}
		if n := sent.Load(); n > 512<<10 {
			t.Errorf("%d bytes were taken from a client that does not read, want about 256 KiB", n)
		}
		_, _ = here.Close(), there.Close()
	})
}

func TestAClientThatReadsAfterAWhileIsReadOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		c := server.Metered(here, server.Limits{}, func(r server.RefusedReason) { t.Errorf("refused: %v", r) })
		go func() { _, _ = c.Write(make([]byte, 100)) }()
		go func() {
			_, _ = there.Write([]byte(http2.ClientPreface))
			for range 100 {
				_, _ = there.Write(frameOf(0, 0, 16<<10))
			}
			_ = there.Close()
		}()
		go func() {
			time.Sleep(5 * time.Second)
			_, _ = io.ReadFull(there, make([]byte, 100))
		}()
		n, err := io.Copy(io.Discard, c)
		if err != nil && !errors.Is(err, io.ErrClosedPipe) || n != 24+100*(9+16<<10) {
			t.Errorf("read %d bytes, %v; want all", n, err)
		}
		_ = here.Close()
	})
}

// Between two writes there may be no moment in which none is under way.
func TestAClientThatTakesOneWriteAfterTheOtherIsReadOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		c := server.Metered(here, server.Limits{}, func(r server.RefusedReason) { t.Errorf("refused: %v", r) })
		go func() {
			for {
				if _, err := c.Write(make([]byte, 100)); err != nil {
					return
				}
			}
		}()
		var reader sync.WaitGroup
		reader.Go(func() {
			for {
				time.Sleep(100 * time.Millisecond)
				if _, err := io.ReadFull(there, make([]byte, 100)); err != nil {
					return
				}
			}
		})
		go func() {
			_, _ = there.Write([]byte(http2.ClientPreface))
			for range 1000 {
				_, _ = there.Write(frameOf(0, 0, 16<<10))
			}
			_ = there.Close()
		}()
		n, err := io.Copy(io.Discard, c)
		if err != nil && !errors.Is(err, io.ErrClosedPipe) || n != 24+1000*(9+16<<10) {
			t.Errorf("read %d bytes, %v; want all", n, err)
		}
		_ = here.Close()
		reader.Wait()
	})
}

// grpc-go answers some calls before the broker sees them, e.g. those of another content type. They are in no limit of an identity.
func TestCallsThatNoLimitSeesAreCutWhenTheyAreTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var why atomic.Value
		here, there := net.Pipe()
		c := server.Metered(here, server.Limits{CallsPerSecond: 10}, func(r server.RefusedReason) { why.Store(r) })
		sent := make(chan int, 1)
		go func() {
			n := 0
			_, err := there.Write([]byte(http2.ClientPreface))
			for ; err == nil; n++ {
				if n == 2000 {
					time.Sleep(time.Second) // for a thousand more
				}
				_, err = there.Write(frameOf(1, 5, 30))
			}
			sent <- n
		}()
		_, err := io.Copy(io.Discard, c)
		_, _ = here.Close(), there.Close()
		if n := <-sent; err == nil || why.Load() != server.RefusedFlood || n < 3000 || n > 3002 {
			t.Errorf("got %v and %v after %d calls, want it cut for a flood after 3000", err, why.Load(), n)
		}
	})
}

func frameOf(kind, flags byte, length int) []byte {
	return append([]byte{byte(length >> 16), byte(length >> 8), byte(length), kind, flags, 0, 0, 0, 1}, make([]byte, length)...)
}

func TestFramesThatBringNoWork(t *testing.T) {
	for _, tt := range []struct {
		name  string
		frame []byte
		idle  int
	}{
		{"headers", frameOf(1, 4, 30), 0}, {"data", frameOf(0, 1, 30), 0}, {"the end of a message", frameOf(0, 1, 0), 0},
		{"a ping, which grpc-go counts", frameOf(6, 0, 8), 0}, {"a window update", frameOf(8, 0, 4), 0}, {"empty data", frameOf(0, 0, 0), 1},
		{"a reset", frameOf(3, 0, 4), 1}, {"settings", frameOf(4, 0, 6), 1}, {"a priority", frameOf(2, 0, 5), 1}, {"a continuation", frameOf(9, 0, 30), 1},
	} {
		stream := append([]byte(http2.ClientPreface), bytes.Repeat(tt.frame, 3)...)
		if got := server.Idle(stream); got != 3*tt.idle {
			t.Errorf("%s: got %d of 3 idle, want %d", tt.name, got, 3*tt.idle)
		}
	}
}

func TestWhatAResetOfTheBrokersOwnCostsItsClient(t *testing.T) {
	reset := func(code byte) []byte { return append(frameOf(3, 0, 4)[:12], code) }
	for _, tt := range []struct {
		name string
		code http2.ErrCode
		want int
	}{
		{"an answer before the end of the question", http2.ErrCodeNo, 0}, {"a deadline", http2.ErrCodeCancel, 0},
		{"a stream beyond those that it may have", http2.ErrCodeRefusedStream, 8}, {"a window update of nothing", http2.ErrCodeProtocol, 1},
		{"data beyond the window", http2.ErrCodeFlowControl, 1}, {"data after the end", http2.ErrCodeStreamClosed, 1},
		{"headers that are too large", http2.ErrCodeFrameSize, 1},
	} {
		if got := server.Owed(reset(byte(tt.code))); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
	stream := slices.Concat(frameOf(4, 0, 6), reset(7), frameOf(0, 0, 100), reset(0), reset(8), reset(7), frameOf(3, 0, 5), reset(7), reset(1), frameOf(1, 5, 30))
	if got := server.Owed(stream); got != 25 {
		t.Errorf("got %d owed, want 25", got)
	}
	for at := range stream {
		if got := server.Owed(stream[:at], stream[at:]); got != 25 {
			t.Errorf("got %d owed in pieces at %d, want 25", got, at)
		}
	}
	var bytes [][]byte
	for i := range stream {
		bytes = append(bytes, stream[i:i+1])
	}
	if got := server.Owed(bytes...); got != 25 {
		t.Errorf("got %d owed byte by byte, want 25", got)
	}
}

// TestS09AClientThatHasItsCallsResetWithoutEndIsCut resets nothing itself: it breaks the protocol, and the broker does (CVE-2025-8671).
func TestS09AClientThatHasItsCallsResetWithoutEndIsCut(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true, Ops: true, Limits: server.Limits{StreamsPerConn: 500, CallsPerSecond: 1e6}})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	ask := newRequest(t, tokenbrokerv1.TokenService_GetToken_FullMethodName, &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	for name, breach := range map[string]func(*http2.Framer, uint32) error{
		"a window update of nothing": func(f *http2.Framer, stream uint32) error {
			return f.WriteRawFrame(http2.FrameWindowUpdate, 0, stream, make([]byte, 4))
		},
		"a window update of nothing, of an idle stream": func(f *http2.Framer, stream uint32) error {
			return f.WriteRawFrame(http2.FrameWindowUpdate, 0, stream+1_000_000, make([]byte, 4))
		},
		"data after the end": func(f *http2.Framer, stream uint32) error { return f.WriteData(stream, true, []byte("more")) },
	} {
		t.Run(name, func(t *testing.T) {
			before := metric(t, b, "tokenbroker_connections_refused_total", `reason="flood"`)
			client := dialLean(t, b.Daemon.Addr(), clientTLS(t, b, mtls.Template{SPIFFEID: worker("breaker"), Client: true}))
			client.framer.AllowIllegalWrites = true
			ended := make(chan struct{})
			go func() { defer close(ended); client.listenTo(nil) }()
			var err error
			for sent := 0; err == nil && sent < 1_000_000; sent++ {
				if err = client.send(ask); err == nil {
					err = breach(client.framer, client.stream-2)
				}
			}
			if err == nil {
				t.Error("a million calls were begun and reset on one connection")
			}
			_ = client.conn.Close()
			<-ended
			if n := metric(t, b, "tokenbroker_connections_refused_total", `reason="flood"`) - before; n != 1 {
				t.Errorf("counted %v floods, want 1", n)
			}
		})
	}
}

// FuzzMeter sends the same bytes as a whole and in two pieces: where the network cuts them makes no difference.
func FuzzMeter(f *testing.F) {
	f.Add(append(frameOf(3, 0, 4), frameOf(0, 0, 0)...), 5)
	f.Add(append(frameOf(1, 4, 300), frameOf(4, 0, 6)...), 310)
	f.Fuzz(func(t *testing.T, frames []byte, at int) {
		stream := append([]byte(http2.ClientPreface), frames...)
		at = max(0, min(len(stream), at))
		if whole, parts := server.Idle(stream), server.Idle(stream[:at], stream[at:]); whole != parts {
			t.Errorf("got %d as a whole and %d in pieces at %d", whole, parts, at)
		}
	})
}
