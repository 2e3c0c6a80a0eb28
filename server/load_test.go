package server_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// lean is a client that speaks just enough HTTP/2 to load a server: what it costs itself is small beside what it measures.
type lean struct {
	t      testing.TB
	conn   *tls.Conn
	out    *bufio.Writer
	in     *bufio.Reader
	framer *http2.Framer
	stream uint32 // the next
	taken  uint32 // bytes of the connection's window that are not given back

	got func(message int) // told the length of each DATA frame; may be nil
}

const (
	leanWindow = 1 << 30
	giveBack   = 1 << 28
)

// dialLean connects.
func dialLean(t testing.TB, addr net.Addr, cfg *tls.Config) *lean {
	t.Helper()
	conn, err := tls.Dial("tcp", addr.String(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w := &lean{t: t, conn: conn, out: bufio.NewWriterSize(conn, 64<<10), in: bufio.NewReaderSize(conn, 64<<10), stream: 1}
	w.framer = http2.NewFramer(w.out, w.in)
	w.framer.SetReuseFrames()
	_, err = w.out.WriteString(http2.ClientPreface)
	must(t, errors.Join(err, w.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: leanWindow}),
		w.framer.WriteWindowUpdate(0, leanWindow), w.out.Flush()))
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// request is a call, ready to be sent: from the second time on all its headers are in the table of the connection.
type request struct{ first, again, body []byte }

func newRequest(t testing.TB, method string, m proto.Message) *request {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	headers := func() []byte {
		block.Reset()
		for _, f := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: method},
			{Name: ":authority", Value: "localhost"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}} {
			must(t, enc.WriteField(f))
		}
		return bytes.Clone(block.Bytes())
	}
	r := &request{first: headers(), again: headers()}
	msg, err := proto.Marshal(m)
	must(t, err)
	r.body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
	return r
}

// send begins a call, in the buffer.
func (w *lean) send(r *request) error {
	block := r.again
	if w.stream == 1 {
		block = r.first
	}
	id := w.stream
	w.stream += 2
	return errors.Join(
		w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}),
		w.framer.WriteData(id, true, r.body))
}

// read reads what there is, and returns how many calls ended.
func (w *lean) read() (ended int, err error) {
	for {
		f, err := w.framer.ReadFrame()
		if err != nil {
			return ended, err
		}
		end, err := w.handle(f)
		if err != nil {
			return ended, err
		}
		ended += end
		if w.in.Buffered() == 0 {
			return ended, nil
		}
	}
}

func (w *lean) handle(f http2.Frame) (ended int, err error) {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			err = errors.Join(w.framer.WriteSettingsAck(), w.out.Flush())
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			err = errors.Join(w.framer.WritePing(true, f.Data), w.out.Flush())
		}
	case *http2.DataFrame:
		if w.got != nil {
			w.got(len(f.Data()))
		}
		if w.taken += uint32(len(f.Data())); w.taken > giveBack {
			err = errors.Join(w.framer.WriteWindowUpdate(0, w.taken), w.out.Flush())
			w.taken = 0
		}
	case *http2.HeadersFrame:
		if f.StreamEnded() {
			ended = 1
		}
	case *http2.RSTStreamFrame, *http2.GoAwayFrame:
		err = fmt.Errorf("the server says %v", f)
	}
	return ended, err
}

// call makes n calls, so many in flight.
func (w *lean) call(r *request, n, inFlight int) error {
	for begun, ended, next := 0, 0, min(n, inFlight); ended < n; {
		for range next {
			if err := w.send(r); err != nil {
				return err
			}
		}
		begun += next
		if err := w.out.Flush(); err != nil {
			return err
		}
		now, err := w.read()
		if err != nil {
			return err
		}
		ended += now
		next = min(now, n-begun)
	}
	return nil
}

// listen reads until the connection ends.
func (w *lean) listen() {
	for {
		if _, err := w.read(); err != nil {
			return
		}
	}
}
