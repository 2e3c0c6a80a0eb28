// Package load is a client that costs next to nothing, so that the server is what is measured: it reads and writes the frames of
// HTTP/2 itself, with one goroutine per connection, and knows just as much of gRPC as a benchmark needs.
//
// It is strict where a benchmark could fool itself. Every reply goes through a check of the caller's, a stream that ends without
// grpc-status 0 is an error, and so is every frame that it does not expect. It is no client for anything else: it takes no
// compression and no messages over 1 MiB, and does not wait for the peer's flow-control windows, only fails when one is overrun.
package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	window     = 1 << 30 // what the peer may send unasked, per stream and per connection
	peerWindow = 65535   // what the peer lets us send, until it says otherwise
	maxMessage = 1 << 20
	prefix     = 5 // bytes before a gRPC message: compressed or not, length
	dialFor    = 10 * time.Second
)

// Target is whom to load.
type Target struct {
	Addr string
	TLS  *tls.Config
}

// Conn is one connection. One goroutine may use it at a time; Close may be called from any.
type Conn struct {
	raw    *tls.Conn
	in     *bufio.Reader
	out    *bufio.Writer
	frames *http2.Framer
	decode *hpack.Decoder
	status string // of the trailers that are being decoded
	said   string // grpc-message beside it

	target  Target
	headers bytes.Buffer
	encode  *hpack.Encoder
	next    uint32 // stream
	unacked int    // bytes received since the last window update
	credit  int64  // bytes that the peer lets us send
}

// Dial connects, and returns when the server has sent its settings: the handshake is over for both then.
func Dial(ctx context.Context, t Target) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialFor)
	defer cancel()
	raw, err := (&tls.Dialer{Config: t.TLS}).DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := newConn(raw.(*tls.Conn), t)
	if err := c.greet(); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("greet: %w", err)
	}
	return c, nil
}

func newConn(raw *tls.Conn, t Target) *Conn {
	c := &Conn{raw: raw, in: bufio.NewReaderSize(raw, 64<<10), out: bufio.NewWriterSize(raw, 32<<10), target: t, next: 1, credit: peerWindow}
	c.frames = http2.NewFramer(c.out, c.in)
	c.frames.SetReuseFrames()
	c.encode = hpack.NewEncoder(&c.headers)
	c.decode = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case "grpc-status":
			c.status = f.Value
		case "grpc-message":
			c.said = f.Value
		}
	})
	return c
}

func (c *Conn) greet() error {
	_ = c.raw.SetDeadline(time.Now().Add(dialFor))
	_, err := c.out.WriteString(http2.ClientPreface)
	err = errors.Join(err,
		c.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}, http2.Setting{ID: http2.SettingEnablePush}),
		c.frames.WriteWindowUpdate(0, window-peerWindow), c.out.Flush())
	if err != nil {
		return err
	}
	f, err := c.frames.ReadFrame()
	if err != nil {
		return err
	}
	if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
		return fmt.Errorf("the server began with %s", f.Header())
	}
	return errors.Join(c.frames.WriteSettingsAck(), c.out.Flush(), c.raw.SetDeadline(time.Time{}))
}

// Close cuts the connection; whoever reads it gets an error.
func (c *Conn) Close() error { return c.raw.NetConn().Close() }

// request sends a call's headers and its only message, into the buffer. It returns the stream.
func (c *Conn) request(method string, message []byte, more ...hpack.HeaderField) (uint32, error) {
	id := c.next
	c.next += 2
	c.headers.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: method}, {Name: ":authority", Value: c.target.Addr},
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "tokenbroker-bench"}, {Name: "te", Value: "trailers"},
	}, more...) {
		if err := c.encode.WriteField(f); err != nil {
			return 0, err
		}
	}
	err := c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.headers.Bytes(), EndHeaders: true})
	if err != nil {
		return 0, err
	}
	body := make([]byte, prefix, prefix+len(message))
	body[1], body[2], body[3], body[4] = byte(len(message)>>24), byte(len(message)>>16), byte(len(message)>>8), byte(len(message))
	body = append(body, message...)
	if c.credit -= int64(len(body)); c.credit < 0 {
		return 0, errors.New("the server's flow-control window is overrun")
	}
	return id, c.frames.WriteData(id, true, body)
}

// flush sends what the buffer holds, unless there is more to read first, which may bring more to send.
func (c *Conn) flush() error {
	if c.in.Buffered() > 0 {
		return nil
	}
	return c.out.Flush()
}

// events is what a connection does with what it reads.
type events struct {
	data func(stream uint32, data []byte) error
	end  func(stream uint32, status string) error // status is "" if the stream was reset
}

// read reads one frame and handles it.
func (c *Conn) read(e events) error {
	if err := c.flush(); err != nil {
		return err
	}
	frame, err := c.frames.ReadFrame()
	if err != nil {
		return err
	}
	switch f := frame.(type) {
	case *http2.DataFrame:
		return c.data(f, e)
	case *http2.HeadersFrame:
		return c.trailers(f, e)
	case *http2.RSTStreamFrame:
		return e.end(f.StreamID, "")
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.frames.WritePing(true, f.Data)
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.frames.WriteSettingsAck()
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.credit += int64(f.Increment)
		}
	default:
		return fmt.Errorf("unexpected frame: %s", f.Header())
	}
	return nil
}

func (c *Conn) data(f *http2.DataFrame, e events) error {
	if c.unacked += int(f.Length); c.unacked > window/2 {
		if err := c.frames.WriteWindowUpdate(0, uint32(c.unacked)); err != nil {
			return err
		}
		c.unacked = 0
	}
	if err := e.data(f.StreamID, f.Data()); err != nil {
		return err
	}
	if f.StreamEnded() {
		return e.end(f.StreamID, "")
	}
	return nil
}

func (c *Conn) trailers(f *http2.HeadersFrame, e events) error {
	if !f.HeadersEnded() {
		return errors.New("headers in more than one frame")
	}
	c.status = ""
	if _, err := c.decode.Write(f.HeaderBlockFragment()); err != nil {
		return err
	}
	if f.StreamEnded() {
		return e.end(f.StreamID, c.status)
	}
	return c.decode.Close()
}

// message takes the first whole message out of what a stream has received; nil if there is none yet.
func message(buf []byte) (msg, rest []byte, err error) {
	if len(buf) < prefix {
		return nil, buf, nil
	}
	n := int(buf[1])<<24 | int(buf[2])<<16 | int(buf[3])<<8 | int(buf[4])
	switch {
	case buf[0] != 0:
		return nil, nil, errors.New("a compressed message")
	case n > maxMessage:
		return nil, nil, fmt.Errorf("a message of %d bytes", n)
	case len(buf) < prefix+n:
		return nil, buf, nil
	}
	return buf[prefix : prefix+n : prefix+n], buf[prefix+n:], nil
}

// closed reports whether an error only says that the connection was closed.
func closed(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF)
}
