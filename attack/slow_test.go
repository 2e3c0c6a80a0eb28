package attack_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tokenbroker/tokenbroker/attack/wire"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

const subscribePath = "/tokenbroker.v1.TokenService/Subscribe"

// bulky adds a credential whose updates are of about 5 kB, so that some publications fill what the transport holds for a stream.
func (w *world) bulky() {
	w.t.Helper()
	var scopes []string
	for i := range 40 {
		scopes = append(scopes, fmt.Sprint(strings.Repeat("s", 100), i))
	}
	w.add("example/bulky", scopes...)
}

// subscribeRaw opens a stream on a connection of raw frames.
func subscribeRaw(t testing.TB, c *wire.Conn, id uint32, names ...string) {
	t.Helper()
	must(t, c.Call(id, encode(t, &tokenbrokerv1.SubscribeRequest{Selectors: selectors(names...)}), wire.Fields(subscribePath)...))
}

// streams waits until so many subscriptions are open.
func (w *world) streams(want int) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d streams", want), func() bool { return w.metric("tokenbroker_streams") == float64(want) })
}

func received(s *wire.Seen, id uint32) int {
	if st := s.Streams[id]; st != nil {
		return st.Bytes
	}
	return 0
}

// TestS13AWindowThatStaysShut has one stream of a connection open no window for ever, and another that reads. The broker can't take a
// message back that it began to send, so it cuts the connection, and the sibling goes with it. No other connection notices.
func TestS13AWindowThatStaysShut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{limits: "slow_reader: 2s"})
	w.bulky()
	v := w.victim()
	other := keepReading(open(t, w.conn(w.as("worker/other")), "example/bulky"))
	w.memoryWarm()
	mem := w.memory()
	c := w.dial("worker/mallory", wire.Options{Settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}})
	subscribeRaw(t, c, 1, "example/bulky")
	subscribeRaw(t, c, 3, "example/pulse")
	must(t, c.Send(func(f *http2.Framer) error { return f.WriteWindowUpdate(3, 1<<30) }))
	if !c.Await(patience, func(s *wire.Seen) bool { return received(s, 3) > 0 }) {
		t.Fatal("the stream that reads got nothing")
	}
	w.streams(4)
	published := 0
	for cut := false; !cut && published < 2000; published++ {
		w.toggle("example/bulky")
		cut = c.Await(0, func(s *wire.Seen) bool { return s.Err != nil })
	}
	if !c.Await(patience, func(s *wire.Seen) bool { return s.Err != nil }) {
		t.Fatalf("the connection stands after %d publications", 2*published)
	}
	c.Await(0, func(s *wire.Seen) bool {
		t.Logf("cut after %d publications: %v; the stalled stream got %d bytes, its sibling %d", 2*published, s.Err, received(s, 1), received(s, 3))
		if received(s, 1) > 0 {
			t.Errorf("the stalled stream got %d bytes without a window", received(s, 1))
		}
		return true
	})
	w.streams(2) // both of that connection are gone
	wantNewest(t, w, other, "example/bulky")
	mem.atMost(t, 2*mostGrowth) // with the garbage of hundreds of publications
	v.well(t)
}

// kept is a stream that is read all the time, as a worker does, and not only when the test comes to it.
type kept struct {
	stream
	got chan *tokenbrokerv1.SubscribeResponse // closed when the stream ends, after err was set
	err error
}

// keepReading reads a stream until it ends, which it does with its test.
func keepReading(s stream) stream {
	k := &kept{stream: s, got: make(chan *tokenbrokerv1.SubscribeResponse, 1<<16)}
	go func() {
		defer close(k.got)
		for {
			m, err := s.Recv()
			if err != nil {
				k.err = err
				return
			}
			k.got <- m
		}
	}()
	return k
}

// Recv is the stream's own.
func (k *kept) Recv() (*tokenbrokerv1.SubscribeResponse, error) {
	if m, ok := <-k.got; ok {
		return m, nil
	}
	return nil, k.err
}

// wantNewest wants that a stream gets to the newest state of a credential.
func wantNewest(t testing.TB, w *world, s stream, name string) {
	t.Helper()
	fresh := open(t, w.conn(w.as("worker/late")), name)
	w.toggle(name)
	want := order{}
	for state := tokenbrokerv1.CredentialState(0); state != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY; {
		m, err := fresh.Recv()
		must(t, err)
		if u := m.GetUpdate(); u != nil {
			want, state = orderOf(u), u.GetState()
		}
	}
	for got := (order{}); got != want; {
		m, err := s.Recv()
		if err != nil {
			t.Errorf("a stream that reads ended before the newest state came: %v", err)
			return
		}
		if u := m.GetUpdate(); u.GetSelector().GetCredential() == name {
			got = orderOf(u)
		}
	}
}

// order is how updates are ordered.
type order struct{ generation, revision uint64 }

func orderOf(u *tokenbrokerv1.Update) order { return order{u.GetGeneration(), u.GetRevision()} }

// TestS13ReadersThatReadNothing leaves every byte of many connections unread.
func TestS13ReadersThatReadNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{limits: "slow_reader: 2s"})
	w.bulky()
	v := w.victim()
	w.memoryWarm()
	mem := w.memory()
	deaf := count(10, 100)
	for range deaf {
		c := w.dial("worker/mallory", wire.Options{Deaf: true, Settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 30}}})
		must(t, c.Send(func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1<<30) }))
		subscribeRaw(t, c, 1, "example/bulky")
	}
	w.streams(1 + deaf)
	began := time.Now()
	published := 0
	for ; published < 20_000 && w.metric("tokenbroker_streams") > 1; published++ {
		w.toggle("example/bulky")
	}
	w.streams(1)
	t.Logf("%d streams that nobody reads were cut after %d publications, %v", deaf, 2*published, time.Since(began).Round(time.Millisecond))
	mem.atMost(t, 2*mostGrowth) // with the garbage of hundreds of publications
	v.well(t)
}

// TestP10SlowSubscribersCostNothing has a tenth of all clients stop reading, while what they subscribe to changes again and again. The
// others get every newest state; the slow ones get the newest too once they read, or are cut.
func TestP10SlowSubscribersCostNothing(t *testing.T) {
	t.Parallel()
	for round := range count(1, 10) {
		t.Run(fmt.Sprint(round+1), slowSubscribers)
	}
}

func slowSubscribers(t *testing.T) {
	clients := count(300, 10_000)
	perConn := 10
	w := newWorld(t, plan{limits: "slow_reader: 2s\nstreams_per_identity: 100000"})
	w.bulky()
	v := w.victim()
	readers := w.crowd("worker/reader", clients*9/10/perConn, perConn, "example/bulky")
	for range 5 { // as many publications as a broker in use has seen
		w.toggle("example/bulky")
	}
	readers.reach(w.newest("example/bulky"))
	mem := w.memory()
	for range 10 {
		w.toggle("example/bulky")
	}
	readers.reach(w.newest("example/bulky"))
	usual := mem.grew(t)

	config := w.as("worker/slow")
	for range clients / 10 { // one connection each: a connection is cut as a whole
		_, err := subscribe(t.Context(), w.conn(config), "example/bulky")
		must(t, err)
	}
	w.streams(clients + 1)
	mem = w.memory()
	rounds := 0
	for began := time.Now(); rounds < 15 || w.metric("tokenbroker_streams") > float64(clients*9/10+1) && rounds < 500; rounds++ {
		w.toggle("example/bulky")
		if rounds%5 == 0 {
			readers.reach(w.newest("example/bulky"))
			t.Logf("%d publications, %v: %v streams", 2*(rounds+1), time.Since(began).Round(time.Millisecond), w.metric("tokenbroker_streams"))
		}
	}
	readers.reach(w.newest("example/bulky"))
	w.streams(clients*9/10 + 1) // the slow ones were cut
	grew := mem.grew(t)
	t.Logf("memory: %d MiB before; publishing adds %d MiB, with slow readers %d MiB", mem.before>>20, usual>>20, grew>>20)
	// In a small broker a tenth is less than what the collector leaves lying.
	if most := max(usual, 0) + mem.before/10 + int64(count(32, 0))<<20; grew > most {
		t.Errorf("slow readers cost %d MiB, want at most %d", grew>>20, most>>20)
	}
	v.well(t)
}
