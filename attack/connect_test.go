package attack_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// hello is the first flight of a TLS client, as it goes over the wire.
func hello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	var sent bytes.Buffer
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyN(&sent, theirs, 5) // a record's head says how long it is
		if head := sent.Bytes(); len(head) == 5 {
			_, _ = io.CopyN(&sent, theirs, int64(head[3])<<8|int64(head[4]))
		}
		_ = theirs.Close()
	}()
	_ = tls.Client(ours, config).HandshakeContext(t.Context())
	_ = ours.Close()
	<-done
	return sent.Bytes()
}

// TestS11HalfOpenHandshakes opens connections that never finish their handshake: silent ones, some with half a greeting, and some with a byte
// every second. Others get in meanwhile, and the broker ends them by itself.
func TestS11HalfOpenHandshakes(t *testing.T) {
	t.Parallel()
	limits := "handshake_timeout: 10s" // in which a busy machine gets good ones done
	if whole() {
		limits = "handshakes: 20000"
	}
	w := newWorld(t, plan{limits: limits})
	v := w.victim()
	w.memoryWarm()
	mem := w.memory()
	greeting := hello(t, w.as("worker/mallory"))
	began := time.Now()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for i := range count(1_000, 10_000) {
		c, err := net.Dial("tcp", w.grpc())
		must(t, err)
		open = append(open, c)
		if i%2 == 0 {
			_, _ = c.Write(greeting[:len(greeting)/2])
		}
	}
	var wg sync.WaitGroup
	for i := range 20 {
		c, err := net.Dial("tcp", w.grpc())
		must(t, err)
		open = append(open, c)
		wg.Go(func() { drip(c, greeting[:len(greeting)-1], i) })
	}
	config, worst := w.as("worker/honest"), time.Duration(0)
	for range count(30, 300) {
		at := time.Now()
		c, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: each}, Config: config}).DialContext(within(t, each), "tcp", w.grpc())
		if err != nil {
			t.Errorf("a good handshake among the bad ones: %v", err)
			continue
		}
		worst = max(worst, time.Since(at))
		_ = c.Close()
	}
	t.Logf("%d half-open handshakes; the longest of the good ones took %v", len(open), worst.Round(time.Millisecond))
	for i, c := range open {
		must(t, c.SetReadDeadline(time.Now().Add(patience)))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("connection %d got an answer", i)
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d stands after %v", i, time.Since(began))
		}
	}
	wg.Wait()
	t.Logf("all were ended after %v", time.Since(began).Round(time.Millisecond))
	mem.atMost(t, int64(count(100, 700))<<20)
	v.well(t)
}

// drip writes a byte each second until the other end has enough of it.
func drip(c net.Conn, text []byte, offset int) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range text {
		if _, err := c.Write(text[i : i+1]); err != nil {
			return
		}
		if i >= offset {
			<-tick.C
		}
	}
}

// TestS12SubscriptionsOfAnIdentityAreBounded opens more streams than one identity may have, over several connections.
func TestS12SubscriptionsOfAnIdentityAreBounded(t *testing.T) {
	t.Parallel()
	most := count(8, 256)
	w := newWorld(t, plan{limits: fmt.Sprintf("streams_per_identity: %d", most)})
	v := w.victim()
	for range most {
		open(t, w.conn(w.as("worker/mallory")), "example/one")
	}
	conn, ctx := w.conn(w.as("worker/mallory")), t.Context()
	for range count(50, 5_000-most) {
		s, err := subscribe(ctx, conn, "example/one")
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.ResourceExhausted || reason(err) != "TOO_MANY" {
			t.Fatalf("got %v (%s) for one more, want RESOURCE_EXHAUSTED, TOO_MANY", err, reason(err))
		}
	}
	if _, err := get(brief(t), conn, "example/one"); err != nil {
		t.Errorf("a call of the same identity: %v", err)
	}
	for range most {
		open(t, w.conn(w.as("worker/honest")), "example/one")
	}
	if got, want := w.metric("tokenbroker_streams"), float64(2*most+1); got != want {
		t.Errorf("got %v streams, want %v", got, want)
	}
	v.well(t)
}

// TestS14ForcedRefreshesInALoop reports a good token as refused, and asks for refreshes, again and again. The provider hears of few.
func TestS14ForcedRefreshesInALoop(t *testing.T) {
	t.Parallel()
	const floor = time.Second // 30 s if nobody says otherwise
	w := newWorld(t, plan{floor: floor})
	v := w.victim()
	began, before := time.Now(), w.exchanges()
	mallory := w.conn(w.as("worker/mallory"))
	tokens, outcomes := tokenbrokerv1.NewTokenServiceClient(mallory), map[string]int{}
	ctx := t.Context()
	for i := 0; i < count(500, 20_000) || w.exchanges() == before; i++ {
		tok, err := get(ctx, mallory, "example/one")
		must(t, err)
		_, err = tokens.ReportRejected(ctx, &tokenbrokerv1.ReportRejectedRequest{Credential: "example/one",
			Generation: tok.GetGeneration(), HttpStatus: 401})
		outcomes["report "+status.Code(err).String()+" "+reason(err)]++
	}
	reported := w.exchanges()
	for i := 0; i < count(500, 20_000) || w.exchanges() == reported; i++ {
		_, err := w.credentials().RefreshCredential(ctx, &tokenbrokerv1.RefreshCredentialRequest{Credential: "example/one"})
		outcomes["refresh "+status.Code(err).String()+" "+reason(err)]++
	}
	most := 1 + int(time.Since(began)/floor)
	if got := w.exchanges() - before; got > most {
		t.Errorf("got %d token requests in %v, want at most %d", got, time.Since(began), most)
	} else {
		t.Logf("%d token requests, at most %d; %v", got, most, outcomes)
	}
	v.well(t)
}
