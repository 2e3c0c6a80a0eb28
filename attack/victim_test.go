package attack_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// each is the time that a call of a well-behaved worker may take, on a machine that has far too much to do.
const each = 30 * time.Second

// victim is a worker that does nothing wrong: it asks for a token again and again, and holds a stream.
type victim struct {
	w      *world
	conn   *grpc.ClientConn
	stream stream
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	took   []time.Duration // of each call
	failed error
}

// victim has a worker begin. It has its token and its snapshot when this returns.
func (w *world) victim() *victim {
	w.t.Helper()
	v := &victim{w: w, conn: w.conn(w.as("worker/victim"))}
	v.stream = open(w.t, v.conn, "example/one", "example/pulse")
	ctx, stop := context.WithCancel(w.t.Context())
	v.stop = stop
	v.done.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			v.call(ctx)
			<-tick.C
		}
	})
	w.t.Cleanup(func() {
		stop()
		v.done.Wait()
	})
	return v
}

func (v *victim) call(ctx context.Context) {
	began := time.Now()
	call, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	_, err := get(call, v.conn, "example/one")
	v.mu.Lock()
	defer v.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	v.took = append(v.took, time.Since(began))
	if err != nil && v.failed == nil {
		v.failed = err
	}
}

func (v *victim) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.took)
}

// well wants that no call failed, that calls go on, and that the stream brings the next change.
func (v *victim) well(t testing.TB) {
	t.Helper()
	so := v.count()
	eventually(t, "the victim's next calls", func() bool { return v.count() >= so+3 })
	v.stop()
	v.done.Wait()
	slices.Sort(v.took)
	at := func(share float64) time.Duration {
		return v.took[int(share*float64(len(v.took)-1))].Round(100 * time.Microsecond)
	}
	t.Logf("victim: %d calls, half took %v, 99 %% %v, the longest %v", len(v.took), at(0.5), at(0.99), at(1))
	if v.failed != nil {
		t.Errorf("a call of the victim failed: %v", v.failed)
	}
	v.w.toggle("example/pulse")
	for states := map[tokenbrokerv1.CredentialState]bool{}; !states[tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY]; {
		m, err := v.stream.Recv()
		if err != nil {
			t.Errorf("the stream of the victim ended: %v", err)
			return
		}
		if u := m.GetUpdate(); u.GetSelector().GetCredential() == "example/pulse" {
			states[u.GetState()] = true
		}
	}
}
