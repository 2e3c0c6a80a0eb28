package attack_test

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tokenbroker/tokenbroker/attack/wire"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// mostGrowth is what a flood may add to the broker's memory.
const mostGrowth = 50 << 20

// most watches a number of /metrics until stop, and returns the highest.
func (s *site) most(read func(text string) float64) (stop func() float64) {
	over, result := make(chan struct{}), make(chan float64)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		highest := 0.0
		for {
			_, text := s.ask("/metrics")
			highest = max(highest, read(text))
			select {
			case <-over:
				result <- highest
				return
			case <-tick.C:
			}
		}
	}()
	return func() float64 { close(over); return <-result }
}

func inHandlers(text string) float64 {
	return sum(text, "grpc_server_started_total") - sum(text, "grpc_server_handled_total")
}

// TestS09RapidReset begins calls and resets them at once, as fast as the connection takes it, on a call that would wait for a provider.
func TestS09RapidReset(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{limits: "streams_per_connection: 64"})
	v := w.victim()
	w.memoryWarm()
	mem := w.memory()
	highest := w.most(inHandlers)
	goroutines := w.most(func(text string) float64 { return sum(text, "go_goroutines") })
	const peers = 2
	done := make(chan int, peers)
	for range peers {
		go func() { done <- w.rapidReset(count(10_000, 100_000)) }()
	}
	sent := 0
	for range peers {
		sent += <-done
	}
	handlers, routines := highest(), goroutines()
	t.Logf("%d calls begun and reset; at most %v in handlers, %v goroutines", sent, handlers, routines)
	if most := float64(peers*64 + 8); handlers > most {
		t.Errorf("got %v calls in handlers at a time, want at most %v", handlers, most)
	}
	if routines > 1500 {
		t.Errorf("got %v goroutines, want them bounded by the streams of a connection", routines)
	}
	mem.atMost(t, mostGrowth)
	v.well(t)
}

// memoryWarm calls what fills the pools of a broker that has just started, so that an attack is measured without them.
func (w *world) memoryWarm() {
	w.t.Helper()
	conn := w.conn(w.as("worker/warm"))
	for range 200 {
		_, err := get(brief(w.t), conn, "example/one")
		must(w.t, err)
	}
}

// rapidReset begins so many calls on a connection, unless it is cut before, and returns how many.
func (w *world) rapidReset(calls int) int {
	c, err := wire.Dial(w.t.Context(), w.grpc(), w.as("worker/mallory"), wire.Options{})
	if err != nil {
		w.t.Errorf("dial: %v", err)
		return 0
	}
	defer func() { _ = c.Close() }()
	message := wire.Message(0, encode(w.t, &tokenbrokerv1.GetTokenRequest{Credential: "example/one"}))
	fields := wire.Fields(getToken)
	for n := range calls {
		id := uint32(2*n + 1)
		err := c.Send(func(f *http2.Framer) error {
			block, err := c.Block(fields...)
			if err != nil {
				return err
			}
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}); err != nil {
				return err
			}
			if n%2 == 0 {
				if err := f.WriteData(id, true, message); err != nil {
					return err
				}
			}
			return f.WriteRSTStream(id, http2.ErrCodeCancel)
		})
		if err != nil {
			return n
		}
	}
	if !c.Await(patience, func(s *wire.Seen) bool { return s.Err != nil }) {
		w.t.Errorf("a peer that took back %d calls is still connected", calls)
	}
	return calls
}

// flood writes frames until so many are out or the connection is cut, many with each flush. It returns how many went out.
func flood(c *wire.Conn, frames int, write func(f *http2.Framer, n int) error) int {
	const each = 100
	for n := 0; n < frames; n += each {
		if c.Send(func(f *http2.Framer) error {
			for i := range each {
				if err := write(f, n+i); err != nil {
					return err
				}
			}
			return nil
		}) != nil {
			return n
		}
	}
	return frames
}

// TestS10Floods sends each kind of frame that costs the sender little. The connection is cut, or what it may hold is bounded.
func TestS10Floods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	w.memoryWarm()
	frames := count(50_000, 1_000_000)
	for _, c := range []struct {
		name  string
		cut   bool // the connection must be ended
		write func(f *http2.Framer, n int) error
	}{
		{"PING", true, func(f *http2.Framer, n int) error { return f.WritePing(false, [8]byte{byte(n)}) }},
		{"SETTINGS", true, func(f *http2.Framer, _ int) error { return f.WriteSettings() }},
		{"SETTINGS of the window", true, func(f *http2.Framer, n int) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(n)})
		}},
		{"PRIORITY", true, func(f *http2.Framer, n int) error {
			return f.WritePriority(uint32(2*n+1), http2.PriorityParam{Weight: byte(n)})
		}},
		{"of no known type", false, func(f *http2.Framer, _ int) error { return f.WriteRawFrame(0x77, 0xff, 0, make([]byte, 512)) }},
		{"WINDOW_UPDATE", false, func(f *http2.Framer, _ int) error { return f.WriteWindowUpdate(0, 1) }},
		{"WINDOW_UPDATE beyond 2^31", false, func(f *http2.Framer, _ int) error { return f.WriteWindowUpdate(0, 1<<31-1) }},
		{"RST_STREAM of idle streams", true, func(f *http2.Framer, n int) error { return f.WriteRSTStream(uint32(2*n+1), http2.ErrCodeCancel) }},
		{"empty DATA", true, func(f *http2.Framer, _ int) error { return f.WriteData(1, false, nil) }},
	} {
		mem := w.memory()
		began := time.Now()
		conn := w.dial("worker/mallory", wire.Options{})
		sent := flood(conn, frames, c.write)
		_ = conn.Send(func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }) // answered when all before it was read
		if !conn.Await(patience, func(s *wire.Seen) bool { return s.GoAway != nil || s.Err != nil || !c.cut && s.Pongs > 0 }) {
			t.Errorf("%s: after %d frames the connection neither ends nor answers", c.name, sent)
		}
		conn.Await(0, func(s *wire.Seen) bool {
			t.Logf("%s: %d frames in %v, then %v, %v", c.name, sent, time.Since(began).Round(time.Millisecond), s.GoAway, s.Err)
			return true
		})
		_ = conn.Close()
		mem.atMost(t, mostGrowth)
	}
	v.well(t)
}

// TestS10DeafFloods sends what has to be answered, and reads no answer.
func TestS10DeafFloods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	w.memoryWarm()
	message := wire.Message(0, encode(t, &tokenbrokerv1.GetTokenRequest{Credential: "example/one"}))
	calls := func(c *wire.Conn, f *http2.Framer, n int) error {
		block, err := c.Block(wire.Fields(getToken)...)
		if err != nil {
			return err
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*n + 1), BlockFragment: block, EndHeaders: true}); err != nil {
			return err
		}
		return f.WriteData(uint32(2*n+1), true, message)
	}
	for _, c := range []struct {
		name  string
		most  int64
		write func(c *wire.Conn, f *http2.Framer, n int) error
	}{
		{"SETTINGS", mostGrowth, func(_ *wire.Conn, f *http2.Framer, _ int) error { return f.WriteSettings() }},
		{"calls", mostGrowth, calls},
		// As many are answered as its network buffers take, on top of what the flood before left.
		{"calls whose answers it lets come", 2 * mostGrowth, func(c *wire.Conn, f *http2.Framer, n int) error {
			if n == 0 {
				_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
				_ = f.WriteWindowUpdate(0, 1<<30)
			}
			return calls(c, f, n)
		}},
	} {
		mem := w.memory()
		conn := w.dial("worker/mallory", wire.Options{Deaf: true})
		// The broker has to stop reading, and then the writing ends: there is no time that would be too short to show it.
		must(t, conn.NetConn().SetWriteDeadline(time.Now().Add(time.Duration(count(3, 30))*time.Second)))
		const frames = 10_000_000
		sent := flood(conn, frames, func(f *http2.Framer, n int) error { return c.write(conn, f, n) })
		t.Logf("%s: %d frames went out", c.name, sent)
		if sent == frames {
			t.Errorf("%s: the broker takes all, though its answers are not read", c.name)
		}
		_ = conn.Close()
		mem.atMost(t, c.most)
	}
	v.well(t)
}

// TestS10Bombs sends what is small to send and large to hold: headers without end, messages beyond what is allowed, plain and compressed.
func TestS10Bombs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	w.memoryWarm()
	mem := w.memory()
	t.Run("CONTINUATION without end", func(t *testing.T) {
		c := w.dial("worker/mallory", wire.Options{})
		_ = c.Send(func(f *http2.Framer) error {
			block, err := c.Block(wire.Fields(getToken)...)
			if err != nil {
				return err
			}
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
		})
		field := literal("x-long", strings.Repeat("a", 4000))
		sent := flood(c, 100_000, func(f *http2.Framer, _ int) error { return f.WriteContinuation(1, false, field) })
		if !c.Await(patience, func(s *wire.Seen) bool { return s.Err != nil || s.GoAway != nil }) {
			t.Errorf("the connection stands after %d frames", sent)
		}
		t.Logf("cut after %d frames", sent)
	})
	t.Run("a header list of 16 MiB", func(t *testing.T) {
		c := w.dial("worker/mallory", wire.Options{})
		var fields []hpack.HeaderField
		for range 16 {
			fields = append(fields, hpack.HeaderField{Name: "x-long", Value: strings.Repeat("a", 1<<20), Sensitive: true})
		}
		_ = c.Send(func(f *http2.Framer) error {
			block, err := c.Block(wire.Fields(getToken, fields...)...)
			if err != nil {
				return err
			}
			const each = 16 << 10
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:each]}); err != nil {
				return err
			}
			for block = block[each:]; len(block) > each; block = block[each:] {
				if err := f.WriteContinuation(1, false, block[:each]); err != nil {
					return err
				}
			}
			return f.WriteContinuation(1, true, block)
		})
		ended(t, c, 1)
		wantNoAnswer(t, c, "")
	})
	t.Run("a field that stands for many", func(t *testing.T) { // one field in the table, named ten thousand times: a byte each
		c := w.dial("worker/mallory", wire.Options{})
		_ = c.Send(func(f *http2.Framer) error {
			block, err := c.Block(wire.Fields(getToken, hpack.HeaderField{Name: "x-bomb", Value: strings.Repeat("a", 3000)})...)
			if err != nil {
				return err
			}
			index := byte(0x80 | 62) // the newest of the table
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true,
				BlockFragment: append(bytes.Clone(block), bytes.Repeat([]byte{index}, 10_000)...)})
		})
		ended(t, c, 1)
		wantNoAnswer(t, c, "")
	})
	t.Run("a message of 4 MiB", func(t *testing.T) {
		c := w.dial("worker/mallory", wire.Options{})
		must(t, c.Headers(1, false, wire.Fields(getToken)...))
		_ = c.Send(func(f *http2.Framer) error { // more than the window: the length alone has to be enough
			return f.WriteData(1, false, wire.Message(0, make([]byte, 4<<20))[:16<<10])
		})
		ended(t, c, 1)
		wantNoAnswer(t, c, "8") // RESOURCE_EXHAUSTED
	})
	t.Run("a message that unpacks to a thousand times its size", func(t *testing.T) {
		var zipped bytes.Buffer
		z, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
		must(t, err)
		for range count(8, 1024) {
			_, err := z.Write(make([]byte, 1<<20))
			must(t, err)
		}
		must(t, z.Close())
		c := w.dial("worker/mallory", wire.Options{})
		must(t, c.Headers(1, false, wire.Fields(getToken, hpack.HeaderField{Name: "grpc-encoding", Value: "gzip"})...))
		body := wire.Message(1, zipped.Bytes())
		_ = c.Send(func(f *http2.Framer) error {
			for len(body) > 16<<10 {
				if err := f.WriteData(1, false, body[:16<<10]); err != nil {
					return err
				}
				body = body[16<<10:]
			}
			return f.WriteData(1, true, body)
		})
		ended(t, c, 1)
		wantNoAnswer(t, c, "")
	})
	mem.atMost(t, mostGrowth)
	v.well(t)
	if got := w.records("worker/mallory"); len(got) != 0 {
		t.Errorf("got %d records, first %+v: something reached the guard", len(got), got[0])
	}
}

// literal is a header field that no table is used for.
func literal(name, value string) []byte {
	b := append([]byte{0, byte(len(name))}, name...)
	b = hpack.AppendHuffmanString(b, "")
	return append(append(b, 0x7f, byte((len(value)-127)&0x7f|0x80), byte((len(value)-127)>>7)), value...)
}

// wantNoAnswer wants that stream 1 brought nothing, or that it ended with a gRPC code.
func wantNoAnswer(t testing.TB, c *wire.Conn, code string) {
	t.Helper()
	c.Await(0, func(s *wire.Seen) bool {
		st := s.Streams[1]
		if st == nil {
			st = &wire.Stream{}
		}
		t.Logf("got status %q, %q, reset %v, connection %v, %v", st.Fields["grpc-status"], st.Fields["grpc-message"], st.Reset, s.GoAway, s.Err)
		if got := st.Fields["grpc-status"]; st.Bytes > 0 || got == "0" || code != "" && got != code {
			t.Errorf("got %d bytes and status %q, want a refusal %s", st.Bytes, got, code)
		}
		return true
	})
}
