package store_test

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"syscall"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

// brim fills a file with other things until not even one byte more fits.
func brim(t *testing.T, e store.Engine, name string) {
	t.Helper()
	for size := 128 << 10; size > 0; size /= 2 {
		bucket := "filler" + strings.Repeat("x", bits.Len(uint(size))) // what is small does not lie beside what is big
		for n, err := 0, error(nil); err == nil; n++ {
			if n == 2000 {
				t.Fatal("the file does not get full")
			}
			op := store.Op{Key: store.Key{Bucket: bucket, Name: fmt.Sprintf("%s.%04d", name, n)}, Value: make([]byte, size)}
			_, err = e.Txn(t.Context(), store.Txn{Do: []store.Op{op}})
		}
	}
}

// full is a store at its maximum size, and a credential in it whose refresh token is being spent.
type full struct {
	*store.Store
	place *place
	cred  tokenbroker.Credential
}

func newFull(t *testing.T) *full {
	t.Helper()
	f := &full{place: newPlace(t)}
	f.open(t)
	for i := range 100 { // so that records of each kind have pages of their own
		commit(t, f.Store, outcome(create(t, f.Store, fmt.Sprintf("b/%d", i)), 1, "", "at", ""))
	}
	f.cred = create(t, f.Store, "a")
	begin(t, f.Store, f.cred, 1, "try-1")
	brim(t, f.place.engine, "first")
	return f
}

func (f *full) open(t *testing.T) {
	t.Helper()
	e, err := bolt.Open(f.place.path, bolt.Options{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	f.place.engine = e
	f.Store = openOn(t, e, f.place.kek)
}

// Who begins a refresh has room for an intent, and others may take what is left before its answer is there.
func TestAFullFileTakesARefreshTokenThatCanNotBeHadAgain(t *testing.T) {
	f := newFull(t)
	if _, _, err := f.Commit(t.Context(), outcome(f.cred, 1, "try-1", "at-2", "rt-2")); err != nil {
		t.Fatalf("commit: %v", err)
	}
	brim(t, f.place.engine, "second")
	if _, _, err := f.Commit(t.Context(), outcome(f.cred, 1, "try-0", "at-0", "rt-0")); !errors.Is(err, tokenbroker.ErrSuperseded) {
		t.Errorf("commit of a late result: got %v, want it kept apart", err)
	}
	brim(t, f.place.engine, "third")
	held := tokenbroker.Consent{ID: "c1", Credential: "a", Grant: &tokenbroker.Adoption{Credential: "a", RefreshToken: canary("rt-c")}}
	if _, err := f.PutConsent(t.Context(), held, 0); err != nil {
		t.Errorf("a consent that holds what its code brought: %v", err)
	}
	f.place.stop(t)
	s := f.place.open(t)
	if _, g := load(t, s, "a"); g.Serial != 2 || g.RefreshToken.Reveal() != "rt-2" || g.Intent != nil {
		t.Errorf("after a restart: got serial %d, intent %v, want the refresh token that was given", g.Serial, g.Intent)
	}
	if kept := orphans(t, s); len(kept) != 1 || kept[0].Outcome.RefreshToken.Reveal() != "rt-0" {
		t.Errorf("orphans: got %+v, want rt-0", kept)
	}
	if c, err := s.Consent(t.Context(), "c1"); err != nil || c.Grant == nil || c.Grant.RefreshToken.Reveal() != "rt-c" {
		t.Errorf("consent: got %+v, %v, want its refresh token", c, err)
	}
}

// A broker whose store is full is where room is made, and where a grant is ended that somebody has stolen.
func TestAFullFileIsOpenedAndRevokedIn(t *testing.T) {
	f := newFull(t)
	f.place.stop(t)
	f.open(t)
	g, err := f.Revoke(t.Context(), "a", f.cred.UID, noon)
	if err != nil || g.Revoking == nil {
		t.Fatalf("revoke: got %+v, %v, want the grant revoked", g.Revoking, err)
	}
	brim(t, f.place.engine, "second")
	if g, err = f.Revoked(t.Context(), "a", f.cred.UID, nil); err != nil || g.Revoking != nil {
		t.Errorf("revoked: got %+v, %v, want it ended", g.Revoking, err)
	}
}

// Whether the few pages of a small record fit into a full file depends on what was written before: they are let past as well.
func TestWhatIsLetPastTheMaximumNeedsNothingThatIsNot(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	begin(t, s, c, 1, "try-1")
	p.stop(t)
	f := &faulty{Engine: p.start(t), before: func(txn store.Txn) error {
		if !txn.Vital {
			return syscall.ENOSPC
		}
		return nil
	}}
	s = openOn(t, f, p.kek)
	if _, _, err := s.Commit(t.Context(), outcome(c, 1, "try-1", "at-2", "rt-2")); err != nil {
		t.Errorf("commit, with the first number of a reservation: %v", err)
	}
}

func TestAFullFileTakesNothingThatCanBeDoneAgain(t *testing.T) {
	f := newFull(t)
	for name, write := range map[string]func() error{
		"a credential": func() error {
			_, err := f.CreateCredential(t.Context(), credential("more"), tokenbroker.Grant{})
			return err
		},
		"a consent": func() error { _, err := f.PutConsent(t.Context(), tokenbroker.Consent{ID: "c1"}, 0); return err },
		"a token":   func() error { _, _, err := f.Commit(t.Context(), outcome(f.cred, 1, "try-1", "at-2", "")); return err },
		"the same refresh token": func() error {
			_, _, err := f.Commit(t.Context(), outcome(f.cred, 1, "try-1", "at-2", "rt-1"))
			return err
		},
		"a result that came late": func() error { _, _, err := f.Commit(t.Context(), outcome(f.cred, 7, "try-7", "at-7", "")); return err },
	} {
		if err := write(); !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
			t.Errorf("%s: got %v, want ErrStoreUnavailable", name, err)
		}
	}
}
