package store

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/tokenbroker/tokenbroker"
)

// reserved is how many numbers are taken at a time, so that no key is written with every commit. After a restart the rest
// of a reservation is lost, which 48 bits can bear.
const reserved = 1024

// numbers gives out record numbers, of which generations are a part: unique in the store, rising, never the same after a
// restart. A number is epoch << tokenbroker.EpochShift | counter. What was given out is below a bound that is durable first.
type numbers struct {
	store *Store
	turn  chan struct{} // one token: who holds it may use the fields below, and may wait for the engine meanwhile
	last  uint64        // given out last
	bound uint64        // durable
}

func newNumbers(s *Store) *numbers {
	return &numbers{store: s, turn: make(chan struct{}, 1)}
}

// next returns a number above floor and above every number that this process gave out.
func (n *numbers) next(ctx context.Context, floor uint64) (uint64, error) {
	select {
	case n.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-n.turn }()
	// Another process may have been given higher numbers than are left of our reservation.
	if n.last >= n.bound || floor >= n.bound {
		if err := retry(ctx, "reserve numbers", func() error { return n.reserve(ctx) }); err != nil {
			return 0, err
		}
	}
	if floor >= n.bound {
		return 0, fmt.Errorf("%w: a record has number %d, but only %d were given out: restore it from a backup", ErrDamaged, floor, n.bound)
	}
	n.last = max(n.last, floor) + 1
	return n.last, nil
}

// reserve takes the numbers above the durable bound.
func (n *numbers) reserve(ctx context.Context) error {
	entries, err := n.store.read(ctx, numbersKey)
	if err != nil {
		return err
	}
	var r numbersRecord
	written, err := n.store.open(entries[0], 0, &r)
	if err != nil {
		return err
	}
	from := r.Bound
	if from > math.MaxUint64-reserved || (from+reserved)>>tokenbroker.EpochShift != from>>tokenbroker.EpochShift {
		return errors.New("the numbers of this epoch are used up")
	}
	r.Bound += reserved
	d := &draft{sealer: &n.store.sealer, number: written + 1}
	d.txn.Vital = true // for what is vital, which needs a number
	d.expect(entries...)
	d.put(numbersKey, &r)
	if err := n.store.write(ctx, d); err != nil {
		return err
	}
	n.last, n.bound = max(from, n.last), r.Bound
	return nil
}
