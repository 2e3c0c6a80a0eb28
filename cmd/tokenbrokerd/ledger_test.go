package main_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// lateness is how long a message of a stream may have been on its way on a busy machine: it is judged where it arrives, not
// where it was sent. What a call or a snapshot brings is judged exactly, by when it was asked for.
const lateness = 30 * time.Second

// ledger holds the newest order that any client was shown of each credential, over all connections and restarts. Whatever is
// shown to a client that asks later must not be older.
type ledger struct {
	mu       sync.Mutex
	newest   map[string]tokenbroker.Order
	problems []string
	tokens   int // seen
}

func newLedger() *ledger { return &ledger{newest: map[string]tokenbroker.Order{}} }

func (l *ledger) at(credential string) tokenbroker.Order {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest[credential]
}

func (l *ledger) all() map[string]tokenbroker.Order {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.newest)
}

// saw notes an order. floor is what it must not fall below.
func (l *ledger) saw(who, credential string, o, floor tokenbroker.Order) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens++
	if o.Compare(floor) < 0 {
		l.problems = append(l.problems, fmt.Sprintf("%s: %s fell from %v to %v", who, credential, floor, o))
	}
	if o.Compare(l.newest[credential]) > 0 {
		l.newest[credential] = o
	}
}

func (l *ledger) wrong(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// check fails the test if anything was wrong.
func (l *ledger) check(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range l.problems {
		if i == 10 {
			t.Errorf("and %d more", len(l.problems)-i)
			return
		}
		t.Error(p)
	}
}

// get asks for a token and judges it. It returns the error of a call that brought none.
func (l *ledger) get(ctx context.Context, conn *grpc.ClientConn, credential string) (*tokenbrokerv1.Token, error) {
	floor, began := l.at(credential), time.Now()
	r, err := tokenbrokerv1.NewTokenServiceClient(conn).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: credential}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	tok := r.GetToken()
	if !tok.GetExpireTime().AsTime().After(began) {
		l.wrong("GetToken: %s had expired at %v, before it was asked for at %v", credential, tok.GetExpireTime().AsTime(), began)
	}
	o := tokenbroker.Order{Generation: tokenbroker.Generation(tok.GetGeneration())}
	l.saw("GetToken", credential, o, tokenbroker.Order{Generation: floor.Generation})
	return tok, nil
}

// watcher is a subscriber that comes back whenever its stream ends, until its context does.
type watcher struct {
	l     *ledger
	who   string
	conn  *grpc.ClientConn
	names []string

	mu        sync.Mutex
	snapshots int // seen to their end
	goingAway int
}

// run subscribes again and again.
func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.stream(ctx)
		switch code := status.Code(err); {
		case ctx.Err() != nil:
		case code != codes.Unavailable:
			w.l.wrong("%s: the stream ended with %v, want UNAVAILABLE", w.who, err)
			return
		}
	}
}

// stream is one subscription, to its end.
func (w *watcher) stream(ctx context.Context) error {
	floor, opened := w.l.all(), time.Now()
	s, err := tokenbrokerv1.NewTokenServiceClient(w.conn).Subscribe(ctx, subscribeRequest(w.names...), grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	seen := map[string]tokenbroker.Order{} // on this connection
	ended := false                         // the snapshot
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		switch {
		case m.GetUpdate() != nil:
			w.update(m.GetUpdate(), floor, seen, ended)
			w.judge(m.GetUpdate(), ended, opened)
		case m.GetRemoved() != nil:
			w.l.wrong("%s: %s was removed", w.who, m.GetRemoved().GetSelector().GetCredential())
		case m.GetSnapshotEnd() != nil:
			ended = w.snapshotEnd(seen)
		case m.GetGoingAway() != nil:
			w.count(&w.goingAway)
		}
	}
}

func (w *watcher) count(n *int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*n++
}

func (w *watcher) snapshotEnd(seen map[string]tokenbroker.Order) bool {
	for _, n := range w.names {
		if _, ok := seen[n]; !ok {
			w.l.wrong("%s: the snapshot ended without %s", w.who, n)
		}
	}
	w.count(&w.snapshots)
	return true
}

func (w *watcher) update(u *tokenbrokerv1.Update, floor, seen map[string]tokenbroker.Order, ended bool) {
	name := u.GetSelector().GetCredential()
	o := tokenbroker.Order{Generation: tokenbroker.Generation(u.GetGeneration()), Revision: u.GetRevision()}
	if before, ok := seen[name]; ok && o.Compare(before) <= 0 {
		w.l.wrong("%s: %s did not rise within a connection: %v after %v", w.who, name, o, before)
	}
	if _, ok := seen[name]; !ok && ended {
		w.l.wrong("%s: the first update of %s came after the snapshot", w.who, name)
	}
	seen[name] = o
	w.l.saw(w.who, name, o, floor[name])
}

// judge wants no token that had expired when it was sent.
func (w *watcher) judge(u *tokenbrokerv1.Update, ended bool, opened time.Time) {
	least := opened
	if ended {
		least = time.Now().Add(-lateness)
	}
	if tok := u.GetToken(); tok != nil && tok.GetExpireTime().AsTime().Before(least) {
		w.l.wrong("%s: %s came with a token that expired at %v", w.who, u.GetSelector().GetCredential(), tok.GetExpireTime().AsTime())
	}
}

// fleet is many watchers over a few connections, each with so many of the credentials. They end before the test does.
func fleet(t testing.TB, s *site, l *ledger, conns, each int, names []string, selectors int) ([]*watcher, []*grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	var watchers []*watcher
	var open []*grpc.ClientConn
	for i := range conns {
		conn := s.conn("worker")
		open = append(open, conn)
		for j := range each {
			w := &watcher{l: l, who: fmt.Sprintf("subscriber %d.%d", i, j), conn: conn}
			for k := range selectors {
				w.names = append(w.names, names[(len(watchers)*selectors+k)%len(names)])
			}
			watchers = append(watchers, w)
			wg.Go(func() { w.run(ctx) })
		}
	}
	return watchers, open
}

// settled waits until every watcher has seen n snapshots to their end.
func settled(t testing.TB, watchers []*watcher, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d snapshots at every subscriber", n), func() bool {
		for _, w := range watchers {
			w.mu.Lock()
			got := w.snapshots
			w.mu.Unlock()
			if got < n {
				return false
			}
		}
		return true
	})
}
