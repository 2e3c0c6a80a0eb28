package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	berrors "go.etcd.io/bbolt/errors"

	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

func TestAFullFileRefusesWritesAndKeepsWhatItHas(t *testing.T) {
	dir := t.TempDir()
	e, err := bolt.Open(filepath.Join(dir, "store.db"), bolt.Options{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	value := bytes.Repeat([]byte("v"), 32<<10)
	stored := 0
	for ; stored < 100; stored++ {
		if _, err = e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: store.Key{Bucket: "test", Name: fmt.Sprintf("%03d", stored)}, Value: value}}}); err != nil {
			break
		}
	}
	if !errors.Is(err, berrors.ErrMaxSizeReached) || errors.Is(err, store.ErrUnknown) {
		t.Fatalf("after %d writes: got %v, want the maximum size, and no doubt about the outcome", stored, err)
	}
	s, err := e.List(t.Context(), "test", "", 1000)
	if err != nil || len(s.Entries) != stored || s.Rev != uint64(stored) {
		t.Errorf("entries: got %d at revision %d, %v, want %d", len(s.Entries), s.Rev, err, stored)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, openIn(t, dir), "more", value) // with a higher limit it goes on
}

// TestAFullFileIsEmptiedByDeleting fills a file until not even one byte fits, at which a page to copy can't be had either.
func TestAFullFileIsEmptiedByDeleting(t *testing.T) {
	const most = 256 << 10
	e, err := bolt.Open(filepath.Join(t.TempDir(), "store.db"), bolt.Options{MaxSize: most})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var keys []store.Key
	for size := 16 << 10; size > 0; size /= 2 {
		for err = nil; err == nil && len(keys) < 2000; {
			key := store.Key{Bucket: "test", Name: fmt.Sprintf("%04d", len(keys))}
			if _, err = e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: key, Value: make([]byte, size)}}}); err == nil {
				keys = append(keys, key)
			}
		}
		if !errors.Is(err, berrors.ErrMaxSizeReached) {
			t.Fatalf("after %d writes: got %v, want the maximum size", len(keys), err)
		}
	}
	for _, key := range keys {
		if _, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: key, Delete: true}}}); err != nil {
			t.Fatalf("delete %s: %v", key.Name, err)
		}
	}
	put(t, e, "more", make([]byte, 32<<10))
	_, err = e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: store.Key{Bucket: "test", Name: "big"}, Value: make([]byte, 512<<10)}}})
	if !errors.Is(err, berrors.ErrMaxSizeReached) {
		t.Errorf("got %v, want the maximum to hold again", err)
	}
}

func TestAFullFileTakesWhatIsVital(t *testing.T) {
	e, err := bolt.Open(filepath.Join(t.TempDir(), "store.db"), bolt.Options{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var wg sync.WaitGroup
	for i := range 8 { // the group that it is in does not fit, nor does it alone
		op := store.Op{Key: store.Key{Bucket: string(rune('a' + i)), Name: "big"}, Value: make([]byte, 1<<20)}
		vital := i == 4
		wg.Go(func() {
			_, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{op}, Vital: vital})
			if vital && err != nil || !vital && !errors.Is(err, berrors.ErrMaxSizeReached) {
				t.Errorf("vital %t: got %v, want the maximum size to hold for what is not", vital, err)
			}
		})
	}
	wg.Wait()
}

func TestOneThatIsTooBigDoesNotFailItsGroup(t *testing.T) {
	e, err := bolt.Open(filepath.Join(t.TempDir(), "store.db"), bolt.Options{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			big := store.Op{Key: store.Key{Bucket: "test", Name: "big"}, Value: make([]byte, 1<<20)}
			if _, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{big}}); !errors.Is(err, berrors.ErrMaxSizeReached) {
				t.Errorf("big: got %v, want the maximum size", err)
			}
		})
		for i := range 4 {
			wg.Go(func() { put(t, e, fmt.Sprint(i), []byte("small")) })
		}
	}
	wg.Wait()
}

func TestCloseDuringWritesAnswersEachWriter(t *testing.T) {
	dir := t.TempDir()
	e := openIn(t, dir)
	var wg sync.WaitGroup
	var mu sync.Mutex
	kept := map[string]bool{}
	first := make(chan struct{})
	var once sync.Once
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d.%d", w, i)
				_, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: store.Key{Bucket: "test", Name: name}, Value: []byte("v")}}})
				if errors.Is(err, store.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("write: got %v, want nil or ErrClosed", err)
					return
				}
				mu.Lock()
				kept[name] = true
				mu.Unlock()
				once.Do(func() { close(first) })
			}
		})
	}
	<-first
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	s, err := openIn(t, dir).List(t.Context(), "test", "", 1_000_000)
	if err != nil || len(s.Entries) != len(kept) {
		t.Errorf("entries: got %d, %v, want the %d that writers were told of", len(s.Entries), err, len(kept))
	}
}

func TestACancelledWriterKnowsWhetherItWrote(t *testing.T) {
	e := openIn(t, t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	wrote := 0
	for w := range 64 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(w)*100*time.Microsecond)
			defer cancel()
			_, err := e.Txn(ctx, store.Txn{Do: []store.Op{{Key: store.Key{Bucket: "test", Name: fmt.Sprint(w)}}}})
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("writer %d: %v", w, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				wrote++
			}
		})
	}
	wg.Wait()
	s, err := e.List(t.Context(), "test", "", 1000)
	if err != nil || len(s.Entries) != wrote {
		t.Errorf("entries: got %d, %v, want %d", len(s.Entries), err, wrote)
	}
}

func TestAWatcherThatFallsTooFarBehindListsAgain(t *testing.T) {
	e := openIn(t, t.TempDir())
	start := put(t, e, "k", nil)
	value := make([]byte, 1<<20)
	n, err := 0, error(nil)
	for ev, werr := range e.Watch(t.Context(), "test", start-1) {
		if err = werr; err != nil {
			break
		}
		if n++; ev.Rev == start {
			for range 20 { // more than the history holds, while the watcher is busy with its first event
				put(t, e, "k", value)
			}
		}
	}
	if !errors.Is(err, store.ErrCompacted) || n != 1 {
		t.Errorf("watch: got %v after %d events, want ErrCompacted after 1", err, n)
	}
	s, err := e.List(t.Context(), "test", "", 10)
	if err != nil {
		t.Fatal(err)
	}
	last := put(t, e, "k", []byte("after the list"))
	for ev, err := range e.Watch(t.Context(), "test", s.Rev) {
		if err != nil || ev.Rev != last {
			t.Errorf("watch from the list: got %+v, %v, want revision %d", ev, err, last)
		}
		break
	}
}

func TestAWatchAfterARestartGoesOnFromTheList(t *testing.T) {
	dir := t.TempDir()
	e := openIn(t, dir)
	old := put(t, e, "k", nil)
	last := put(t, e, "k", nil)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = openIn(t, dir)
	for _, err := range e.Watch(t.Context(), "test", old) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("from before the restart: got %v, want ErrCompacted", err)
		}
	}
	next := put(t, e, "k", nil)
	for ev, err := range e.Watch(t.Context(), "test", last) {
		if err != nil || ev.Rev != next {
			t.Errorf("from the newest: got %+v, %v, want revision %d", ev, err, next)
		}
		break
	}
}

func TestErrorsNameNoValue(t *testing.T) {
	e := openIn(t, t.TempDir())
	secret := strings.Repeat("secret", store.MaxValueBytes/6+1)
	_, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: store.Key{Bucket: "test", Name: "k"}, Value: []byte(secret)}}})
	if !errors.Is(err, store.ErrBadTxn) || strings.Contains(err.Error(), "secret") {
		t.Errorf("error: got %v, want ErrBadTxn and no value in it", err)
	}
}
