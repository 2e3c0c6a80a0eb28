// Package wire speaks HTTP/2 over TLS frame by frame, as no well-behaved client does: it sends whatever it is told to, waits for no
// window, and may leave everything unread. It notes what the server answers, and promises nothing else.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	dialFor  = time.Minute // the machine may be busy, and the server under attack
	mostKept = 1 << 20     // bytes of a stream's data that are kept
)

// Conn is one connection. Any goroutine may use it.
type Conn struct {
	raw  *tls.Conn
	done chan struct{} // closed when nothing is read any more

	out     sync.Mutex
	buf     *bufio.Writer
	frames  *http2.Framer
	headers bytes.Buffer
	encode  *hpack.Encoder

	mu   sync.Mutex
	seen Seen
	more chan struct{} // closed and replaced when something was seen
}

// Seen is what came of a connection so far.
type Seen struct {
	Streams map[uint32]*Stream
	GoAway  *http2.GoAwayFrame // the first one; its debug data is gone
	Pongs   int                // answers to pings
	Err     error              // why nothing comes any more; nil while the connection stands
}

// Stream is what came of a stream.
type Stream struct {
	Fields map[string]string // of all headers and trailers
	Data   []byte            // the beginning
	Bytes  int               // of data in all
	Reset  *http2.ErrCode
	Ended  bool
}

// Options change how a Conn behaves. The zero value is a connection that reads all that comes.
type Options struct {
	Settings []http2.Setting // to begin with
	Deaf     bool            // read nothing, for ever
}

// Dial connects and sends the preface and settings. ctx is for that alone. Close the connection, which also ends the reading.
func Dial(ctx context.Context, addr string, config *tls.Config, o Options) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialFor)
	defer cancel()
	raw, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := &Conn{raw: raw.(*tls.Conn), done: make(chan struct{}), more: make(chan struct{}), seen: Seen{Streams: map[uint32]*Stream{}}}
	c.buf = bufio.NewWriterSize(raw, 64<<10)
	c.frames = http2.NewFramer(c.buf, bufio.NewReaderSize(raw, 16<<10))
	c.frames.AllowIllegalWrites = true
	c.encode = hpack.NewEncoder(&c.headers)
	_, err = c.buf.WriteString(http2.ClientPreface)
	if err = errors.Join(err, c.Send(func(f *http2.Framer) error { return f.WriteSettings(o.Settings...) })); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("preface: %w", err)
	}
	if o.Deaf {
		close(c.done)
	} else {
		go c.read()
	}
	return c, nil
}

// Close cuts the connection and waits for the end of the reading.
func (c *Conn) Close() error {
	err := c.raw.NetConn().Close()
	<-c.done
	return err
}

// NetConn is the connection below TLS.
func (c *Conn) NetConn() net.Conn { return c.raw.NetConn() }

// Send writes frames and flushes them.
func (c *Conn) Send(write func(*http2.Framer) error) error {
	c.out.Lock()
	defer c.out.Unlock()
	return errors.Join(write(c.frames), c.buf.Flush())
}

// Block encodes header fields for WriteHeaders. It is for use within Send, and good until the next.
func (c *Conn) Block(fields ...hpack.HeaderField) ([]byte, error) {
	c.headers.Reset()
	for _, f := range fields {
		if err := c.encode.WriteField(f); err != nil {
			return nil, err
		}
	}
	return c.headers.Bytes(), nil
}

// Headers begins a stream.
func (c *Conn) Headers(stream uint32, end bool, fields ...hpack.HeaderField) error {
	return c.Send(func(f *http2.Framer) error {
		block, err := c.Block(fields...)
		if err != nil {
			return err
		}
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true, EndStream: end})
	})
}

// Call begins a stream and sends its only message.
func (c *Conn) Call(stream uint32, message []byte, fields ...hpack.HeaderField) error {
	if err := c.Headers(stream, false, fields...); err != nil {
		return err
	}
	return c.Send(func(f *http2.Framer) error { return f.WriteData(stream, true, Message(0, message)) })
}

// Fields are the header fields of a gRPC call.
func Fields(path string, more ...hpack.HeaderField) []hpack.HeaderField {
	return append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: path}, {Name: ":authority", Value: "localhost"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...)
}

// Message puts the prefix of gRPC before a message. flag is 1 for one that is compressed.
func Message(flag byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(message))), message...)
}

// Await waits until what was seen fulfils a condition, and reports whether it did. The condition must not keep what it sees. On a deaf
// connection nothing is ever seen.
func (c *Conn) Await(within time.Duration, holds func(*Seen) bool) bool {
	late := time.NewTimer(within)
	defer late.Stop()
	for {
		c.mu.Lock()
		ok, more := holds(&c.seen), c.more
		c.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-more:
		case <-late.C:
			return false
		}
	}
}

// read notes all that comes until the connection ends.
func (c *Conn) read() {
	defer close(c.done)
	decode := hpack.NewDecoder(4096, nil)
	for {
		frame, err := c.frames.ReadFrame()
		if err == nil {
			err = c.answer(frame)
		}
		c.mu.Lock()
		if err == nil {
			err = c.seen.note(frame, decode)
		}
		c.seen.Err = err
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// answer does the least that keeps a connection up.
func (c *Conn) answer(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.Send(func(w *http2.Framer) error { return w.WritePing(true, f.Data) })
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.Send((*http2.Framer).WriteSettingsAck)
		}
	}
	return nil
}

func (s *Seen) note(frame http2.Frame, decode *hpack.Decoder) error {
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		return s.stream(f.StreamID).headers(f, decode)
	case *http2.DataFrame:
		st := s.stream(f.StreamID)
		st.Bytes += len(f.Data())
		if len(st.Data) < mostKept {
			st.Data = append(st.Data, f.Data()...)
		}
		st.Ended = st.Ended || f.StreamEnded()
	case *http2.RSTStreamFrame:
		st := s.stream(f.StreamID)
		st.Reset, st.Ended = &f.ErrCode, true
	case *http2.GoAwayFrame:
		if s.GoAway == nil {
			s.GoAway = f
		}
	case *http2.PingFrame:
		if f.IsAck() {
			s.Pongs++
		}
	}
	return nil
}

func (s *Seen) stream(id uint32) *Stream {
	st := s.Streams[id]
	if st == nil {
		st = &Stream{Fields: map[string]string{}}
		s.Streams[id] = st
	}
	return st
}

func (st *Stream) headers(f *http2.HeadersFrame, decode *hpack.Decoder) error {
	fields, err := decode.DecodeFull(f.HeaderBlockFragment())
	for _, h := range fields {
		st.Fields[h.Name] = h.Value
	}
	st.Ended = st.Ended || f.StreamEnded()
	return err
}
