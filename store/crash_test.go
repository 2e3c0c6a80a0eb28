package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

// everyWrite is each method that writes, on credential "a" with an open intent "try-1" of serial 1 and OAuth client "app".
func everyWrite(c tokenbroker.Credential) map[string]func(context.Context, *store.Store) error {
	return map[string]func(context.Context, *store.Store) error{
		"prove": func(ctx context.Context, s *store.Store) error { return s.Prove(ctx) },
		"create": func(ctx context.Context, s *store.Store) error {
			_, err := s.CreateCredential(ctx, credential("new"), tokenbroker.Grant{})
			return err
		},
		"update": func(ctx context.Context, s *store.Store) error {
			_, err := s.UpdateCredential(ctx, c, 1)
			return err
		},
		"delete": func(ctx context.Context, s *store.Store) error { return s.DeleteCredential(ctx, "a", 1) },
		"begin": func(ctx context.Context, s *store.Store) error {
			_, err := s.Begin(ctx, tokenbroker.Begin{Credential: "a", UID: c.UID, Serial: 1, Attempt: "try-2", Replay: true})
			return err
		},
		"commit": func(ctx context.Context, s *store.Store) error {
			_, _, err := s.Commit(ctx, outcome(c, 1, "try-1", "at-2", "rt-2"))
			return err
		},
		"a late commit": func(ctx context.Context, s *store.Store) error {
			_, _, err := s.Commit(ctx, outcome(c, 7, "try-7", "at-7", "rt-7"))
			return err
		},
		"abort": func(ctx context.Context, s *store.Store) error {
			v := tokenbroker.Verdict{Credential: "a", UID: c.UID, Serial: 1, Attempt: "try-1", ClearIntent: true, State: tokenbroker.StateReauthorize}
			_, err := s.Abort(ctx, v)
			return err
		},
		"adopt": func(ctx context.Context, s *store.Store) error {
			_, _, err := s.Adopt(ctx, tokenbroker.Adoption{Credential: "a", UID: c.UID, RefreshToken: canary("rt-9"), Time: noon})
			return err
		},
		"put client": func(ctx context.Context, s *store.Store) error {
			_, err := s.PutClient(ctx, client("app"), 1)
			return err
		},
		"delete client": func(ctx context.Context, s *store.Store) error { return s.DeleteClient(ctx, "app", 0) },
	}
}

// everything is all that a store says, to compare before and after.
func everything(t *testing.T, s *store.Store) []any {
	t.Helper()
	c, g := load(t, s, "a")
	tok, _, err := s.Token(t.Context(), "a", c.UID, tokenbroker.Variant{}.Key())
	cs, cerr := s.Clients(t.Context(), "", 10)
	all, aerr := s.Credentials(t.Context(), "", 10)
	if err := errors.Join(err, cerr, aerr); err != nil {
		t.Fatal(err)
	}
	return []any{c, g, tok, cs, all, len(orphans(t, s))}
}

func TestAWriteThatFailsLeavesNothingHalfWritten(t *testing.T) {
	p := newPlace(t)
	f := &faulty{Engine: p.start(t)}
	s := openOn(t, f, p.kek)
	c := create(t, s, "a")
	if _, err := s.PutClient(t.Context(), client("app"), 0); err != nil {
		t.Fatal(err)
	}
	begin(t, s, c, 1, "try-1")
	want := everything(t, s)
	f.before = func(store.Txn) error { return syscall.ENOSPC }
	for name, write := range everyWrite(c) {
		err := write(t.Context(), s)
		if !errors.Is(err, tokenbroker.ErrStoreUnavailable) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s on a full disk: got %v, want ErrStoreUnavailable and ENOSPC", name, err)
		}
		if diff := cmp.Diff(want, everything(t, s), revealed); diff != "" {
			t.Errorf("%s (-before +after):\n%s", name, diff)
		}
	}
	p.stop(t)
	if diff := cmp.Diff(want, everything(t, p.open(t)), revealed); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
}

func TestACancelledWriteLeavesNothing(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	if _, err := s.PutClient(t.Context(), client("app"), 0); err != nil {
		t.Fatal(err)
	}
	begin(t, s, c, 1, "try-1")
	want := everything(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, write := range everyWrite(c) {
		if err := write(ctx, s); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", name, err)
		}
	}
	if diff := cmp.Diff(want, everything(t, s), revealed); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func TestACommitThatIsDurableButNotAnsweredIsWhole(t *testing.T) {
	p := newPlace(t)
	f := &faulty{Engine: p.start(t)}
	s := openOn(t, f, p.kek)
	c := create(t, s, "a")
	begin(t, s, c, 1, "try-1")
	o := outcome(c, 1, "try-1", "at-1", "rt-2")
	f.after = func() error { return store.ErrUnknown }
	if _, _, err := s.Commit(t.Context(), o); !errors.Is(err, tokenbroker.ErrStoreUnavailable) || !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("error: got %v, want ErrStoreUnavailable and ErrUnknown", err)
	}
	p.stop(t)
	s = p.open(t)
	_, g := load(t, s, "a")
	tok, ok, err := s.Token(t.Context(), "a", c.UID, o.Variant.Key())
	if g.Serial != 2 || g.RefreshToken.Reveal() != "rt-2" || g.Intent != nil || !ok || err != nil || tok.AccessToken.Reveal() != "at-1" {
		t.Errorf("after a restart: got serial %d, intent %v, token %t, %v, want all of the commit", g.Serial, g.Intent, ok, err)
	}
	if _, _, err := s.Commit(t.Context(), o); !errors.Is(err, tokenbroker.ErrSuperseded) {
		t.Errorf("the same commit again: got %v, want ErrSuperseded", err)
	}
}

func TestGenerationsOnlyRiseAcrossCrashes(t *testing.T) {
	p := newPlace(t)
	var last tokenbroker.Generation
	var c tokenbroker.Credential
	for round := range 12 {
		f := &faulty{Engine: p.start(t)}
		n := 0
		f.before = func(store.Txn) error {
			if n++; round > 0 && n%5 == 4 {
				return syscall.EIO
			}
			return nil
		}
		s := openOn(t, f, p.kek)
		if round == 0 {
			c = create(t, s, "a")
		}
		for range 8 {
			_, tok, err := s.Commit(t.Context(), outcome(c, 1, "", "at", ""))
			if err != nil && !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			if err == nil && tok.Generation <= last {
				t.Fatalf("round %d: generation %d comes after %d", round, tok.Generation, last)
			}
			last = max(last, tok.Generation)
		}
		p.stop(t) // what was reserved is lost, as in a crash
	}
	if last>>tokenbroker.EpochShift != 0 {
		t.Errorf("generation %d: got an epoch, want none without a restore", last)
	}
}

func TestAFileAtItsMaximumSizeRefusesWritesAndServesReads(t *testing.T) {
	p := newPlace(t)
	e, err := bolt.Open(p.path, bolt.Options{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	p.engine = e
	s := openOn(t, e, p.kek)
	c := create(t, s, "a")
	o := outcome(c, 1, "", "at", "")
	n := 0
	for ; err == nil && n < 1000; n++ {
		o.Variant.Subject = fmt.Sprint(n)
		o.Token.Metadata = map[string]string{"blob": string(make([]byte, 16<<10))}
		_, _, err = s.Commit(t.Context(), o)
	}
	if !errors.Is(err, tokenbroker.ErrStoreUnavailable) {
		t.Fatalf("after %d commits: got %v, want ErrStoreUnavailable", n, err)
	}
	for i := range n - 1 {
		if _, ok, err := s.Token(t.Context(), "a", c.UID, tokenbroker.Variant{Subject: fmt.Sprint(i)}.Key()); !ok || err != nil {
			t.Fatalf("token %d of %d: got %t, %v, want it served", i, n-1, ok, err)
		}
	}
	p.stop(t)
	s = p.open(t) // without the limit
	if _, _, err := s.Commit(t.Context(), o); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestAnEditNeverLosesARefreshToken lets two processes share a store. Each commit of the one finds that the other edited
// the configuration after it read and before it wrote.
func TestAnEditNeverLosesARefreshToken(t *testing.T) {
	const rounds = 400
	p := newPlace(t)
	editor := p.open(t)
	f := &faulty{Engine: p.engine}
	broker := openOn(t, f, p.kek)
	c := create(t, editor, "a")
	edits := 0
	edited := c
	inside := false
	f.before = func(txn store.Txn) error {
		if inside || len(txn.Do) < 3 { // the commit alone writes three records: token, grant, index
			return nil
		}
		inside = true
		var err error
		edited.Owner = fmt.Sprint("owner ", edits)
		edited, err = editor.UpdateCredential(t.Context(), edited, edited.Version)
		edits++
		return err
	}
	for i := range rounds {
		inside = false
		serial := uint64(i + 1)
		g, tok, err := broker.Commit(t.Context(), outcome(c, serial, "", fmt.Sprint("at-", serial+1), fmt.Sprint("rt-", serial+1)))
		if err != nil || g.Serial != serial+1 || tok.Generation == 0 {
			t.Fatalf("round %d: got serial %d, generation %d, %v, want serial %d", i, g.Serial, tok.Generation, err, serial+1)
		}
		got, g := load(t, editor, "a")
		if want := fmt.Sprint("rt-", serial+1); g.RefreshToken.Reveal() != want || got.Owner != edited.Owner || got.Version != edited.Version {
			t.Fatalf("round %d: got refresh token %q and owner %q, want %q and %q", i, g.RefreshToken.Reveal(), got.Owner, want, edited.Owner)
		}
	}
	if edits != rounds || len(orphans(t, editor)) != 0 {
		t.Errorf("got %d edits and %d orphans, want %d and 0", edits, len(orphans(t, editor)), rounds)
	}
}

func TestConcurrentWritersOfOneCredentialAllGetThrough(t *testing.T) {
	p := newPlace(t)
	one := p.open(t)
	two := openOn(t, p.engine, p.kek) // another process
	c := create(t, one, "a")
	var mu sync.Mutex
	seen := map[tokenbroker.Generation]bool{}
	var wg sync.WaitGroup
	for i := range 32 {
		s := []*store.Store{one, two}[i%2]
		wg.Go(func() {
			o := outcome(c, 1, "", fmt.Sprint("at-", i), "")
			o.Variant.Subject = fmt.Sprint(i)
			_, tok, err := s.Commit(t.Context(), o)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[tok.Generation] {
				t.Errorf("writer %d: got generation %d, %v, want one of its own", i, tok.Generation, err)
			}
			seen[tok.Generation] = true
		})
	}
	wg.Wait()
	for i := range 32 {
		if _, ok, err := two.Token(t.Context(), "a", c.UID, tokenbroker.Variant{Subject: fmt.Sprint(i)}.Key()); !ok || err != nil {
			t.Errorf("token %d: got %t, %v, want it", i, ok, err)
		}
	}
}

func TestGenerationsRiseBetweenTwoProcesses(t *testing.T) {
	p := newPlace(t)
	one := p.open(t)
	two := openOn(t, p.engine, p.kek)
	c := create(t, one, "a")
	var last tokenbroker.Generation
	for i := range 20 {
		_, tok := commit(t, []*store.Store{one, two}[i%2], outcome(c, 1, "", "at", ""))
		if tok.Generation <= last {
			t.Fatalf("commit %d: generation %d comes after %d", i, tok.Generation, last)
		}
		last = tok.Generation
	}
}

func TestWritersThatNeverWinGiveUp(t *testing.T) {
	p := newPlace(t)
	f := &faulty{Engine: p.start(t)}
	s := openOn(t, f, p.kek)
	c := create(t, s, "a")
	tries := 0
	f.before = func(store.Txn) error { tries++; return store.ErrConflict }
	if _, _, err := s.Commit(t.Context(), outcome(c, 1, "", "at", "")); !errors.Is(err, tokenbroker.ErrStoreUnavailable) || tries == 0 || tries > 100 {
		t.Errorf("after %d tries: got %v, want ErrStoreUnavailable within 100", tries, err)
	}
}

func TestReadsOfAClosedEngineSayThatTheStoreIsUnavailable(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	p.stop(t)
	_, _, loadErr := s.Load(t.Context(), "a")
	_, credErr := s.Credential(t.Context(), "a")
	_, _, tokenErr := s.Token(t.Context(), "a", c.UID, "")
	_, clientErr := s.Client(t.Context(), "app")
	_, clientsErr := s.Clients(t.Context(), "", 10)
	_, listErr := s.Credentials(t.Context(), "", 10)
	errs := []error{loadErr, credErr, tokenErr, clientErr, clientsErr, listErr}
	for _, err := range s.Summaries(t.Context()) {
		errs = append(errs, err)
	}
	for _, err := range s.Orphans(t.Context()) {
		errs = append(errs, err)
	}
	if len(errs) != 8 {
		t.Errorf("errors: got %d, want 8: one of each", len(errs))
	}
	for i, err := range errs {
		if !errors.Is(err, tokenbroker.ErrStoreUnavailable) || !errors.Is(err, store.ErrClosed) {
			t.Errorf("read %d: got %v, want ErrStoreUnavailable and ErrClosed", i, err)
		}
	}
}
