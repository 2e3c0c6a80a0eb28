package attack_test

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/attack/wire"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

const getToken = "/tokenbroker.v1.TokenService/GetToken"

// dial is a connection for raw frames, as some identity.
func (s *site) dial(path string, o wire.Options) *wire.Conn {
	s.t.Helper()
	c, err := wire.Dial(s.t.Context(), s.grpc(), s.as(path), o)
	must(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	must(t, err)
	return b
}

// ended waits until a stream or its connection is over.
func ended(t testing.TB, c *wire.Conn, id uint32) {
	t.Helper()
	if !c.Await(patience, func(s *wire.Seen) bool { return s.Err != nil || s.Streams[id] != nil && s.Streams[id].Ended }) {
		t.Errorf("stream %d: no answer", id)
	}
}

// pseudo changes the pseudo headers of a call: value "" takes one out.
func pseudo(name, value string) []hpack.HeaderField {
	var fields []hpack.HeaderField
	for _, f := range wire.Fields(getToken) {
		if f.Name == name {
			f.Value = value
		}
		if f.Name != name || value != "" {
			fields = append(fields, f)
		}
	}
	return fields
}

// TestS05OnlyTheExactPathReachesAHandler sends whatever resembles a call that would be allowed.
func TestS05OnlyTheExactPathReachesAHandler(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	const service = "tokenbroker.v1.TokenService"
	cases := map[string][]hpack.HeaderField{
		"no path":                       pseudo(":path", ""),
		"an empty path":                 append([]hpack.HeaderField{{Name: ":path"}}, pseudo(":path", "")...),
		"no method":                     pseudo(":method", ""),
		"GET":                           pseudo(":method", "GET"),
		"CONNECT":                       pseudo(":method", "CONNECT"),
		"an unknown method":             pseudo(":method", "BREW"),
		"another content type":          pseudo("content-type", "text/plain"),
		"no content type":               pseudo("content-type", ""),
		"two paths":                     append([]hpack.HeaderField{{Name: ":path", Value: getToken}}, wire.Fields(getToken)...),
		"two methods":                   append([]hpack.HeaderField{{Name: ":method", Value: "POST"}}, wire.Fields(getToken)...),
		"a pseudo header at the end":    append(pseudo(":path", ""), hpack.HeaderField{Name: ":path", Value: getToken}),
		"an unknown pseudo header":      append([]hpack.HeaderField{{Name: ":broker", Value: "x"}}, wire.Fields(getToken)...),
		"a pseudo header of a response": append([]hpack.HeaderField{{Name: ":status", Value: "200"}}, wire.Fields(getToken)...),
		"a header in upper case":        wire.Fields(getToken, hpack.HeaderField{Name: "X-Upper", Value: "x"}),
		"a header of HTTP/1":            wire.Fields(getToken, hpack.HeaderField{Name: "connection", Value: "keep-alive"}),
		"a line feed in a header":       wire.Fields(getToken, hpack.HeaderField{Name: "x-split", Value: "a\r\nb: c"}),
	}
	for _, path := range []string{
		service + "/GetToken", "//" + service + "/GetToken", "/" + service + "//GetToken", "/./" + service + "/GetToken",
		"/x/../" + service + "/GetToken", "/" + service + "/../" + service + "/GetToken", "/" + service + "/GetToken/", "/" + service + "/GetToken/.",
		"/" + service + "/%47etToken", "/tokenbroker.v1.TokenService%2FGetToken", "/" + service + "/GetToken?a=b", "/" + service + "/GetToken#a",
		"/" + service + "/gettoken", "/" + service + "/GetTokens", "/" + service + "/GetToken ", "/" + service + "/GetToken\x00",
		"/" + strings.ToUpper(service) + "/GetToken", "/TokenService/GetToken", "/v1.TokenService/GetToken", "/" + service, "/" + service + "/",
		"https://localhost/" + service + "/GetToken", "http://127.0.0.1/" + service + "/GetToken", "*", "/", "/tokenbroker.v1.TokenService\\GetToken",
	} {
		cases["path "+path] = wire.Fields(path)
	}
	message := encode(t, &tokenbrokerv1.GetTokenRequest{Credential: "example/one"})
	for name, fields := range cases {
		c := w.dial("worker/mallory", wire.Options{})
		if err := c.Call(1, message, fields...); err == nil {
			ended(t, c, 1)
		}
		c.Await(0, func(s *wire.Seen) bool {
			st := s.Streams[1]
			if st != nil && (st.Bytes > 0 || st.Fields["grpc-status"] == "0") {
				t.Errorf("%s: got %d bytes and %v, want no answer but a refusal", name, st.Bytes, st.Fields)
			}
			return true
		})
		_ = c.Close()
	}
	for _, r := range w.records("worker/mallory") {
		if r.Code != "UNKNOWN_METHOD" || r.Decision != "deny" { // they are summed up after some seconds
			t.Errorf("got record %+v: something reached the guard", r)
		}
	}
	c := w.dial("worker/honest", wire.Options{}) // the same frames with nothing wrong in them
	must(t, c.Call(1, message, wire.Fields(getToken)...))
	ended(t, c, 1)
	c.Await(0, func(s *wire.Seen) bool {
		if st := s.Streams[1]; st == nil || st.Bytes == 0 || st.Fields["grpc-status"] != "0" {
			t.Errorf("got %+v for a good call, want a token; so this test shows nothing", st)
		}
		return true
	})
	if got := w.records("worker/honest"); len(got) != 1 || got[0].Decision != "allow" {
		t.Errorf("got records %+v of a good call, want one", got)
	}
	v.well(t)
}

// TestS05FramesOutOfOrder sends frames that HTTP/2 forbids where they come. The connection or the stream ends, and nothing else.
func TestS05FramesOutOfOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	message := wire.Message(0, encode(t, &tokenbrokerv1.GetTokenRequest{Credential: "example/one"}))
	for name, send := range map[string]func(*http2.Framer) error{
		"DATA on an idle stream":     func(f *http2.Framer) error { return f.WriteData(1, true, message) },
		"DATA on stream 0":           func(f *http2.Framer) error { return f.WriteData(0, true, message) },
		"SETTINGS on a stream":       func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameSettings, 0, 1, nil) },
		"SETTINGS of 5 bytes":        func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) },
		"PING of 3 bytes":            func(f *http2.Framer) error { return f.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 3)) },
		"CONTINUATION alone":         func(f *http2.Framer) error { return f.WriteContinuation(1, true, []byte{0x82}) },
		"PUSH_PROMISE":               func(f *http2.Framer) error { return f.WriteRawFrame(http2.FramePushPromise, 4, 1, make([]byte, 8)) },
		"a frame larger than agreed": func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20)) },
		"HEADERS that do not decode": func(f *http2.Framer) error {
			return f.WriteRawFrame(http2.FrameHeaders, 4, 1, []byte{0xff, 0xff, 0xff})
		},
		"HEADERS on an even stream": func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameHeaders, 4, 2, []byte{0x83}) },
		"a window of nothing":       func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) },
	} {
		c := w.dial("worker/mallory", wire.Options{})
		_ = c.Send(send)
		_ = c.Send(func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) })
		if !c.Await(patience, func(s *wire.Seen) bool { return s.Err != nil || s.Pongs > 0 }) {
			t.Errorf("%s: neither an end nor an answer to a ping", name)
		}
		_ = c.Close()
	}
	if got := w.records("worker/mallory"); len(got) != 0 {
		t.Errorf("got %d records, first %+v: something reached the guard", len(got), got[0])
	}
	v.well(t)
}
