package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Orphan is a result that lost its compare: the credential had moved on, or was gone, when it came in. Its refresh token
// may still be the one that the provider takes.
type Orphan struct {
	ID      string    // unique
	Stored  time.Time // when it was kept
	Outcome tokenbroker.Outcome
}

// Orphans yields what is kept apart, by credential. An error that wraps tokenbroker.ErrTampered is about the one orphan
// beside it, of which only ID and Outcome.Credential are known; any other error ends it.
func (s *Store) Orphans(ctx context.Context) iter.Seq2[Orphan, error] {
	return func(yield func(Orphan, error) bool) {
		for e, err := range s.walk(ctx, bucketOrphan) {
			if err != nil {
				yield(Orphan{}, err)
				return
			}
			o, err := s.openOrphan(e)
			if !yield(o, err) {
				return
			}
		}
	}
}

func (s *Store) openOrphan(e Entry) (Orphan, error) {
	name, id, _ := strings.Cut(e.Key.Name, nameDivider)
	o := Orphan{ID: id, Outcome: tokenbroker.Outcome{Credential: name}}
	var r orphanRecord
	if _, err := s.open(e, 0, &r); err != nil {
		return o, err
	}
	o.Stored, o.Outcome = r.Stored, r.outcome(name)
	return o, nil
}

// orphan keeps an outcome that could not be committed because of why, and returns the error for the caller. That the
// compare failed can't become untrue: serials rise and UIDs do not come back. So this needs no compare of its own. Where not
// even that could be written, the error is tokenbroker.ErrStoreUnavailable and not why: the caller has the only copy.
func (s *Store) orphan(ctx context.Context, o tokenbroker.Outcome, why error) error {
	if errors.Is(why, tokenbroker.ErrNotFound) {
		why = fmt.Errorf("credential %q: %w: it is gone", o.Credential, tokenbroker.ErrSuperseded)
	}
	if o.Token == nil && o.RefreshToken.IsZero() {
		return why
	}
	if err := s.keepApart(ctx, o); err != nil {
		return notKept(why, err)
	}
	return why
}

func (s *Store) keepApart(ctx context.Context, o tokenbroker.Outcome) error {
	d, err := s.draft(ctx, 0)
	if err != nil {
		return err
	}
	d.txn.Vital = !o.RefreshToken.IsZero()
	d.put(Key{bucketOrphan, o.Credential + nameDivider + rand.Text()}, orphanToRecord(o))
	return s.write(ctx, d)
}

// notKept is the error for an outcome that is neither committed nor kept apart. It matches no sentinel that says the latter.
func notKept(why, err error) error {
	text := "keep the outcome apart (" + why.Error() + ")"
	switch {
	case lost(err) || errors.Is(err, tokenbroker.ErrSuperseded):
		return fmt.Errorf("%w: %s: %s", tokenbroker.ErrStoreUnavailable, text, err.Error())
	case errors.Is(err, tokenbroker.ErrStoreUnavailable):
		return fmt.Errorf("%s: %w", text, err)
	}
	return fmt.Errorf("%w: %s: %w", tokenbroker.ErrStoreUnavailable, text, err)
}
