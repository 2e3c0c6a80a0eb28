package broker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
)

// crowd has others take the room of the store's file, until no run of a few pages is left.
func (w *world) crowd() {
	w.t.Helper()
	for n, size := 0, 128<<10; size >= 16<<10; n++ {
		bucket := "others" + strings.Repeat("x", size>>14) // what is small does not lie beside what is big
		op := store.Op{Key: store.Key{Bucket: bucket, Name: fmt.Sprint(n)}, Value: make([]byte, size)}
		if _, err := w.engine.Txn(w.t.Context(), store.Txn{Do: []store.Op{op}}); err != nil {
			size /= 2
		}
	}
}

// TestARefreshWhoseRoomIsTakenMeanwhileIsNotLost fills the store between the intent and the answer, for good: until then there was room, and
// without a restart of the broker there will be none.
func TestARefreshWhoseRoomIsTakenMeanwhileIsNotLost(t *testing.T) {
	run(t, plan{traits: rotating, size: 1 << 20}, func(t *testing.T, w *world) {
		w.create("a")
		big := func(ctx context.Context, n int, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
			reply, err := gives(time.Hour, true)(ctx, n, r)
			reply.Token.AccessToken = tokenbroker.NewSecret(strings.Repeat("x", 60<<10))
			return reply, err
		}
		w.subscribe(nil)
		let := w.inFlight(big)
		w.crowd()
		close(let)
		w.pass(time.Second)
		w.down()
		if g := w.grant(); g.RefreshToken.Reveal() != "rt-2" || g.Serial != 3 || g.Intent != nil {
			t.Errorf("got serial %d, intent %v, want what the provider gave stored", g.Serial, g.Intent)
		}
	})
}
