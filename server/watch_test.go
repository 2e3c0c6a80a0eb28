package server_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func sel(credential string, scopes ...string) *tokenbrokerv1.Selector {
	return &tokenbrokerv1.Selector{Credential: credential, Scopes: scopes}
}

// watcher reads a subscription and checks of every stream that orders strictly rise.
type watcher struct {
	t      *testing.T
	events chan *tokenbrokerv1.SubscribeResponse
	ended  chan error
	cancel context.CancelFunc

	patience time.Duration // for the next message; a bubble's time is free, so there it may be long
}

// watch subscribes and reads until the stream ends, at the end of the test at the latest. In a bubble call stop before it ends.
func watch(t *testing.T, conn *grpc.ClientConn, selectors ...*tokenbrokerv1.Selector) *watcher {
	t.Helper()
	return watchWith(t, conn, nil, selectors...)
}

func watchWith(t *testing.T, conn *grpc.ClientConn, opts []grpc.CallOption, selectors ...*tokenbrokerv1.Selector) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{t: t, events: make(chan *tokenbrokerv1.SubscribeResponse, 1<<14), ended: make(chan error, 1), cancel: cancel, patience: patience}
	stream, err := tokensOf(conn).Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{Selectors: selectors}, opts...)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { w.ended <- w.read(stream) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

func (w *watcher) read(stream grpc.ServerStreamingClient[tokenbrokerv1.SubscribeResponse]) error {
	newest := map[string]tokenbroker.Order{}
	for {
		e, err := stream.Recv()
		if err != nil {
			close(w.events)
			return err
		}
		if u := e.GetUpdate(); u != nil {
			key := u.GetSelector().GetCredential() + "|" + tokenbroker.NewVariant(u.GetSelector().GetScopes(), u.GetSelector().GetSubject(), u.GetSelector().GetAudience()).Key()
			if o := orderOf(u); o.Compare(newest[key]) <= 0 {
				w.t.Errorf("%s: got %v after %v, orders must strictly rise", key, o, newest[key])
			} else {
				newest[key] = o
			}
		}
		w.events <- e
	}
}

func orderOf(u *tokenbrokerv1.Update) tokenbroker.Order {
	return tokenbroker.Order{Generation: tokenbroker.Generation(u.GetGeneration()), Revision: u.GetRevision()}
}

// next is the next message but heartbeats. The test fails if none comes.
func (w *watcher) next() *tokenbrokerv1.SubscribeResponse {
	w.t.Helper()
	for {
		select {
		case e, ok := <-w.events:
			switch {
			case !ok:
				w.t.Fatalf("the stream ended: %v", w.end())
			case e.GetHeartbeat() == nil:
				return e
			}
		case <-time.After(w.patience):
			w.t.Fatal("no message came")
		}
	}
}

// update is the next update; what else comes before it fails the test, but for snapshot_end.
func (w *watcher) update() *tokenbrokerv1.Update {
	w.t.Helper()
	e := w.next()
	if e.GetSnapshotEnd() != nil {
		e = w.next()
	}
	if e.GetUpdate() == nil {
		w.t.Fatalf("got %T, want an update", e.GetEvent())
	}
	return e.GetUpdate()
}

// until reads on to the first message that fits.
func (w *watcher) until(fits func(*tokenbrokerv1.SubscribeResponse) bool) *tokenbrokerv1.SubscribeResponse {
	w.t.Helper()
	for {
		if e := w.next(); fits(e) {
			return e
		}
	}
}

// ready reads on to the first update with a token after a generation.
func (w *watcher) ready(after uint64) *tokenbrokerv1.Update {
	w.t.Helper()
	return w.until(func(e *tokenbrokerv1.SubscribeResponse) bool {
		return e.GetUpdate().GetToken() != nil && e.GetUpdate().GetGeneration() > after
	}).GetUpdate()
}

func isRemoved(e *tokenbrokerv1.SubscribeResponse) bool { return e.GetRemoved() != nil }

// end waits for the end of the stream and says why it ended; nil for io.EOF.
func (w *watcher) end() error {
	w.t.Helper()
	select {
	case err := <-w.ended:
		w.ended <- err
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-time.After(w.patience):
		w.t.Fatal("the stream did not end")
		return nil
	}
}
