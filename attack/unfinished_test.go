package attack_test

import (
	"errors"
	"testing"

	"golang.org/x/net/http2"

	"github.com/tokenbroker/tokenbroker/attack/wire"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// TestS09ResetsThatTheBrokerMakes begins calls and breaks the protocol on each, so that it is the broker that resets it (CVE-2025-8671).
func TestS09ResetsThatTheBrokerMakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	w.memoryWarm()
	mem := w.memory()
	message := wire.Message(0, encode(t, &tokenbrokerv1.GetTokenRequest{Credential: "example/one"}))
	conn := w.dial("worker/mallory", wire.Options{})
	sent := flood(conn, count(100_000, 1_000_000), func(f *http2.Framer, n int) error {
		id := uint32(2*n + 1)
		block, err := conn.Block(wire.Fields(getToken)...)
		if err != nil {
			return err
		}
		return errors.Join(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}),
			f.WriteData(id, true, message), f.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4)))
	})
	if !conn.Await(patience, func(s *wire.Seen) bool { return s.Err != nil }) {
		t.Errorf("a peer that had %d calls reset is still connected", sent)
	}
	_ = conn.Close()
	mem.atMost(t, mostGrowth)
	v.well(t)
}

// TestS10CallsWithoutTheirRequests begins calls and never says what they ask for: the first bytes of a message, or nothing.
func TestS10CallsWithoutTheirRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{limits: "call_deadline: 10s"}) // in which a busy machine gets good ones done
	v := w.victim()
	w.memoryWarm()
	mem := w.memory()
	for _, path := range []string{getToken, "/tokenbroker.v1.TokenService/Subscribe"} {
		conn := w.dial("worker/mallory", wire.Options{})
		flood(conn, 1000, func(f *http2.Framer, n int) error {
			block, err := conn.Block(wire.Fields(path)...)
			if err != nil {
				return err
			}
			err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*n + 1), BlockFragment: block, EndHeaders: true})
			return errors.Join(err, f.WriteData(uint32(2*n+1), false, make([]byte, n%3)))
		})
		if !conn.Await(patience, func(s *wire.Seen) bool { return s.Err != nil }) {
			t.Errorf("%s: a peer with 1000 calls that are not finished is still connected", path)
		}
		_ = conn.Close()
	}
	mem.atMost(t, mostGrowth)
	v.well(t)
}
