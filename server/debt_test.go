package server_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// debtor is a server whose connection has asked so often that its answers go ahead of their records.
type debtor struct {
	t     *testing.T
	sink  *hanging
	conn  *grpc.ClientConn
	ahead atomic.Int64 // answers that did
}

// inDebt runs a test of a debtor in a bubble.
func inDebt(t *testing.T, test func(*debtor)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		d := &debtor{t: t, sink: &hanging{}}
		trail := audit.New(d.sink, audit.Options{})
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = trail.Run(ctx) })
		defer wg.Wait()
		defer stop()
		d.conn = newRig(t, b, func(c *server.Config) {
			c.Audit = trail.Write
			c.AuditLate = func(r audit.Record) (audit.Receipt, bool) {
				receipt, ok := trail.Later(r)
				if ok {
					d.ahead.Add(1)
				}
				return receipt, ok
			}
		}).serve(brokertest.WorkerID)
		for range 3 {
			_, err := d.ask()
			must(t, err)
		}
		if d.ahead.Load() == 0 {
			t.Fatal("no answer went ahead of its record")
		}
		test(d)
	})
}

func (d *debtor) ask() (*tokenbrokerv1.GetTokenResponse, error) {
	return tokensOf(d.conn).GetToken(d.t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
}

func TestAnAnswerThatWentAheadStaysWithTheBrokerUntilItIsRecorded(t *testing.T) {
	inDebt(t, func(d *debtor) {
		gate := make(chan struct{})
		d.sink.set(gate, false)
		before := d.ahead.Load()
		var answered atomic.Int64
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := d.ask()
				must(d.t, err)
				answered.Add(1)
			})
		}
		synctest.Wait()
		if d.ahead.Load() == before || answered.Load() > 0 {
			d.t.Errorf("%d answers went ahead, and %d came without a record", d.ahead.Load()-before, answered.Load())
		}
		d.sink.set(nil, false)
		close(gate)
		wg.Wait()
	})
}

func TestAnAnswerThatWentAheadGoesWithItsConnectionWhenItCanNotBeRecorded(t *testing.T) {
	for _, how := range []string{"hangs", "fails"} {
		t.Run("the sink "+how, func(t *testing.T) {
			inDebt(t, func(d *debtor) {
				gate := make(chan struct{})
				if how == "hangs" {
					d.sink.set(gate, false)
				} else {
					d.sink.set(nil, true)
				}
				began := time.Now()
				r, err := d.ask()
				if took := time.Since(began); r.GetToken() != nil || status.Code(err) != codes.Unavailable || took > 2*time.Second {
					t.Errorf("got a token=%v and %v after %v, want UNAVAILABLE within 2 s", r.GetToken() != nil, err, took)
				}
				before := d.ahead.Load()
				for range 3 { // the log is known to be ill: each answer waits for its own record, and becomes an error
					_, err := d.ask()
					wantFault(t, err, codes.Unavailable, "AUDIT_UNAVAILABLE")
				}
				if n := d.ahead.Load() - before; n > 0 {
					t.Errorf("%d answers went ahead of a log that is ill", n)
				}
				d.sink.set(nil, false)
				close(gate)
				time.Sleep(3 * time.Second)
				_, err = d.ask()
				must(t, err)
			})
		})
	}
}
