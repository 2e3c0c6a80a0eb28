package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

// image is a file of pages, as a disk may hold it after a power cut. Pages of zeros are left out. Pages 0 and 1 are the metas: one
// transaction writes the one, the next the other, after all other pages are synced.
type image struct {
	size  int64
	pages map[int64][]byte
}

func takeImage(t *testing.T, path string) image {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	im := image{size: int64(len(b)), pages: map[int64][]byte{}}
	zero := make([]byte, os.Getpagesize())
	for n := int64(0); len(b) > 0; n++ {
		page := b[:min(len(b), len(zero))]
		if b = b[len(page):]; !bytes.Equal(page, zero[:len(page)]) {
			im.pages[n] = bytes.Clone(page)
		}
	}
	return im
}

func (im image) write(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(im.size)
	for n, page := range im.pages {
		_, werr := f.WriteAt(page, n*int64(os.Getpagesize()))
		err = errors.Join(err, werr)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// step is one transaction: the file before and after it.
type step struct {
	name     string
	old, new image
}

// changed lists the pages that a step wrote: metas apart from the others.
func (s step) changed() (metas, data []int64) {
	all := maps.Clone(s.new.pages)
	maps.Copy(all, s.old.pages)
	for _, n := range slices.Sorted(maps.Keys(all)) {
		switch {
		case bytes.Equal(s.old.pages[n], s.new.pages[n]):
		case n < 2:
			metas = append(metas, n)
		default:
			data = append(data, n)
		}
	}
	return metas, data
}

// with is the old file with some pages of the new one.
func (s step) with(pages ...int64) image {
	im := image{size: s.new.size, pages: maps.Clone(s.old.pages)}
	for _, n := range pages {
		im.pages[n] = s.new.pages[n]
	}
	return im
}

// crash is one image, and how it came about.
type crash struct {
	image
	how string
}

// subset is a power cut before the data was synced: some of it is there, the meta is not.
func (s step) subset(r *rand.Rand) crash {
	_, data := s.changed()
	r.Shuffle(len(data), func(i, j int) { data[i], data[j] = data[j], data[i] })
	data = data[:r.IntN(len(data)+1)]
	return crash{s.with(data...), fmt.Sprintf("%s: pages %v without the meta", s.name, data)}
}

// torn is a power cut while the meta was written: all data is there, and the first bytes of the meta.
func (s step) torn(cut int) crash {
	metas, data := s.changed()
	im := s.with(data...)
	for _, n := range metas {
		im.pages[n] = slices.Concat(s.new.pages[n][:cut], s.old.pages[n][cut:])
	}
	return crash{im, fmt.Sprintf("%s: meta torn at %d", s.name, cut)}
}

// lies is a disk that said that a page was synced and lost it.
func (s step) lies() []crash {
	metas, data := s.changed()
	var all []crash
	for i, n := range data {
		kept := slices.Concat(metas, data[:i], data[i+1:])
		all = append(all, crash{s.with(kept...), fmt.Sprintf("%s: page %d lost", s.name, n)})
	}
	return all
}

// record runs a life of a store and takes the file around each transaction.
func record(t *testing.T, p *place) []step {
	t.Helper()
	f := &faulty{Engine: p.start(t)}
	var steps []step
	name := "first start"
	f.before = func(store.Txn) error {
		steps = append(steps, step{name: fmt.Sprintf("%d %s", len(steps), name), old: takeImage(t, p.path)})
		return nil
	}
	f.after = func() error {
		steps[len(steps)-1].new = takeImage(t, p.path)
		return nil
	}
	s := openOn(t, f, p.kek)
	live(t, s, &name)
	name = "second start"
	openOn(t, f, p.kek)
	p.stop(t)
	return slices.DeleteFunc(steps, func(s step) bool { return s.new.pages == nil })
}

const filled = 14 // credentials

func filledName(i int) string { return fmt.Sprintf("c%02d", i) }

// live does every kind of write, in a store with enough in it for trees of several pages.
func live(t *testing.T, s *store.Store, name *string) {
	t.Helper()
	*name = "filling"
	var c tokenbroker.Credential
	for i := range filled {
		c = create(t, s, filledName(i))
		commit(t, s, outcome(c, 1, "", "at-1", "rt-2"))
	}
	must := func(what string, write func() error) {
		*name = what
		if err := write(); err != nil && !errors.Is(err, tokenbroker.ErrSuperseded) {
			t.Fatal(what, err)
		}
	}
	must("put client", func() error { _, err := s.PutClient(t.Context(), client("app"), 0); return err })
	v := tokenbroker.Verdict{Credential: c.Name, UID: c.UID, Serial: 2, State: tokenbroker.StateReauthorize, Code: "invalid_grant"}
	for _, attempt := range []string{"try-1", "try-2"} {
		*name = "begin"
		begin(t, s, c, 2, attempt)
		v.Attempt, v.ClearIntent = attempt, attempt == "try-1"
		must("abort", func() error { _, err := s.Abort(t.Context(), v); return err })
	}
	must("commit", func() error { _, _, err := s.Commit(t.Context(), outcome(c, 2, "try-2", "at-2", "rt-3")); return err })
	must("late commit", func() error { _, _, err := s.Commit(t.Context(), outcome(c, 2, "try-2", "at-3", "rt-x")); return err })
	a := tokenbroker.Adoption{Credential: c.Name, UID: c.UID, RefreshToken: canary("rt-4"), Time: noon}
	must("adopt", func() error { _, _, err := s.Adopt(t.Context(), a); return err })
	must("update", func() error { _, err := s.UpdateCredential(t.Context(), c, 1); return err })
	must("delete", func() error { return s.DeleteCredential(t.Context(), "c07", 0) })
	must("delete client", func() error { return s.DeleteClient(t.Context(), "app", 0) })
}

// account is all that a store says, in words that another process can compare, and the newest generation in it.
func account(ctx context.Context, s *store.Store) (string, tokenbroker.Generation, error) {
	var b strings.Builder
	var newest tokenbroker.Generation
	var errs []error
	for sum, err := range s.Summaries(ctx) {
		if sum.Name == madeAfter {
			continue
		}
		c, g, lerr := s.Load(ctx, sum.Name)
		tok, ok, terr := s.Token(ctx, sum.Name, c.UID, tokenbroker.Variant{}.Key())
		intent := g.Intent
		g.Intent = nil
		fmt.Fprintf(&b, "%+v\n%+v\n%+v %q %q %+v\n%t %+v %q\n", sum, c, g, g.RefreshToken.Reveal(), g.Previous.Reveal(), intent, ok, tok, tok.AccessToken.Reveal())
		newest = max(newest, c.Generation, tok.Generation)
		errs = append(errs, err, lerr, terr)
	}
	for i := range filled { // one that is not in the list any more, but left records behind, is lost and not deleted
		if _, _, err := s.Load(ctx, filledName(i)); !errors.Is(err, tokenbroker.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	cs, err := s.Credentials(ctx, "", 1000)
	cs = slices.DeleteFunc(cs, func(c tokenbroker.Credential) bool { return c.Name == madeAfter })
	clients, cerr := s.Clients(ctx, "", 1000)
	fmt.Fprintf(&b, "%d credentials\n%+v\n", len(cs), clients)
	for o, err := range s.Orphans(ctx) {
		o.Outcome.Token = nil
		fmt.Fprintf(&b, "%+v %q\n", o, o.Outcome.RefreshToken.Reveal())
		errs = append(errs, err)
	}
	return b.String(), newest, errors.Join(append(errs, err, cerr)...)
}

// resume starts a store on the file as the product does, reads everything, writes, and reads again. next is the generation that it
// gave out.
func resume(ctx context.Context, path string, kek keyring.KEK) (digest string, newest, next tokenbroker.Generation, err error) {
	e, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return "", 0, 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	s, err := store.Open(ctx, e, store.Options{KEK: kek})
	if err != nil {
		return "", 0, 0, err
	}
	text, newest, err := account(ctx, s)
	if err != nil {
		return "", 0, 0, err
	}
	c, err := s.CreateCredential(ctx, credential(madeAfter), tokenbroker.Grant{})
	if err != nil {
		return "", 0, 0, err
	}
	again, _, err := account(ctx, s)
	if err == nil && again != text {
		err = errors.New("after a write it says something else of what was there before")
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8]), newest, c.Generation, err
}

// madeAfter is the credential that resume makes, and that an account leaves out.
const madeAfter = "zz-after"
