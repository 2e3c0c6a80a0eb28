package wire_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tokenbroker/tokenbroker/attack/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// peer is an HTTP/2 server of the standard library, and how to reach it.
func peer(t *testing.T, handle http.HandlerFunc) (addr string, config *tls.Config) {
	t.Helper()
	srv := httptest.NewUnstartedServer(handle)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	config = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"h2"}
	return srv.Listener.Addr().String(), config
}

func dial(t *testing.T, addr string, config *tls.Config, o wire.Options) *wire.Conn {
	t.Helper()
	c, err := wire.Dial(t.Context(), addr, config, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Path", r.URL.Path)
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	_, _ = w.Write(body)
}

func TestACallIsAnsweredAndNoted(t *testing.T) {
	addr, config := peer(t, echo)
	c := dial(t, addr, config, wire.Options{})
	if err := c.Call(1, []byte("hello"), wire.Fields("/a.B/C")...); err != nil {
		t.Fatal(err)
	}
	if !c.Await(patience, func(s *wire.Seen) bool { return s.Streams[1] != nil && s.Streams[1].Ended }) {
		t.Fatal("no answer")
	}
	c.Await(0, func(s *wire.Seen) bool {
		st := s.Streams[1]
		if st.Fields["x-path"] != "/a.B/C" || st.Fields["grpc-status"] != "0" || string(st.Data) != "\x00\x00\x00\x00\x05hello" || st.Bytes != 10 {
			t.Errorf("got %+v", st)
		}
		return true
	})
}

func TestWhatIsIllegalIsSentAllTheSame(t *testing.T) {
	addr, config := peer(t, echo)
	for name, send := range map[string]func(*http2.Framer) error{
		"DATA on an idle stream": func(f *http2.Framer) error { return f.WriteData(7, true, nil) },
		"DATA on no stream":      func(f *http2.Framer) error { return f.WriteData(0, true, nil) },
	} {
		c := dial(t, addr, config, wire.Options{})
		if err := c.Send(send); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !c.Await(patience, func(s *wire.Seen) bool { return s.GoAway != nil || s.Err != nil }) {
			t.Errorf("%s: nothing came of it", name)
		}
	}
}

func TestAResetIsNoted(t *testing.T) {
	addr, config := peer(t, echo)
	c := dial(t, addr, config, wire.Options{})
	if err := c.Headers(1, true, wire.Fields("/", hpack.HeaderField{Name: "Upper", Value: "case"})...); err != nil {
		t.Fatal(err)
	}
	if !c.Await(patience, func(s *wire.Seen) bool { return s.Streams[1] != nil && s.Streams[1].Reset != nil }) {
		t.Error("got no reset of a stream that HTTP/2 forbids")
	}
}

func TestPingsAreAnsweredUnlessDeaf(t *testing.T) {
	addr, config := peer(t, echo)
	ping := func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) }
	c := dial(t, addr, config, wire.Options{})
	if err := c.Send(ping); err != nil {
		t.Fatal(err)
	}
	if !c.Await(patience, func(s *wire.Seen) bool { return s.Pongs == 1 }) {
		t.Error("got no answer to a ping")
	}
	deaf := dial(t, addr, config, wire.Options{Deaf: true})
	if err := deaf.Send(ping); err != nil {
		t.Fatal(err)
	}
	if deaf.Await(50*time.Millisecond, func(s *wire.Seen) bool { return s.Pongs > 0 || s.Err != nil }) {
		t.Error("a deaf connection heard something")
	}
}

func TestTheEndOfAConnectionIsNoted(t *testing.T) {
	addr, config := peer(t, echo)
	c := dial(t, addr, config, wire.Options{})
	_ = c.NetConn().Close()
	if !c.Await(patience, func(s *wire.Seen) bool { return s.Err != nil }) {
		t.Error("the connection is gone, and nothing says so")
	}
	if _, err := wire.Dial(t.Context(), "127.0.0.1:1", config, wire.Options{}); err == nil {
		t.Error("got a connection to nobody")
	}
}
