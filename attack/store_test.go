package attack_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// stop ends the broker in order.
func (w *world) stop() {
	w.t.Helper()
	must(w.t, w.proc.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-w.proc.done:
	case <-time.After(patience):
		w.t.Fatal("the broker does not stop")
	}
}

// database changes the file of a broker that is stopped, as one who knows the store well: the mark that says by which transaction it was
// written last is changed, too.
func (w *world) database(do func(*bbolt.Tx) error) {
	w.t.Helper()
	w.clumsily(func(tx *bbolt.Tx) error {
		mark := binary.BigEndian.AppendUint64(nil, uint64(tx.ID()))
		return errors.Join(do(tx), tx.Bucket([]byte("!revision")).Put([]byte("transaction"), mark))
	})
}

// clumsily changes the file as any tool for bbolt files would.
func (w *world) clumsily(do func(*bbolt.Tx) error) {
	w.t.Helper()
	db, err := bbolt.Open(w.path("tokenbroker.db"), 0o600, &bbolt.Options{Timeout: patience})
	must(w.t, err)
	must(w.t, errors.Join(db.Update(do), db.Close()))
}

// recordIn is the key and the value of the record of a name in a bucket.
func recordIn(tx *bbolt.Tx, bucket, name string) (key, value []byte) {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return nil, nil
	}
	_ = b.ForEach(func(k, v []byte) error {
		if base, _, _ := strings.Cut(string(k), "!"); base == name {
			key, value = bytes.Clone(k), bytes.Clone(v)
		}
		return nil
	})
	return key, value
}

// swap exchanges the records of two names.
func (w *world) swap(bucket, a, b string) {
	w.t.Helper()
	w.database(func(tx *bbolt.Tx) error {
		ka, va := recordIn(tx, bucket, a)
		kb, vb := recordIn(tx, bucket, b)
		if va == nil || vb == nil {
			return errors.New("no records to swap in " + bucket)
		}
		to := tx.Bucket([]byte(bucket))
		return errors.Join(to.Put(ka, vb), to.Put(kb, va))
	})
}

// untrusted wants that no token of the names comes, and that a third is served as ever.
func (w *world) untrusted(t testing.TB, what string, names ...string) {
	t.Helper()
	w.start()
	for _, name := range names {
		tok, err := get(brief(t), w.operator, name)
		if reason(err) != "CREDENTIAL_QUARANTINED" {
			t.Errorf("%s: %s: got generation %d, %v, want it quarantined", what, name, tok.GetGeneration(), err)
		}
	}
	if _, err := get(brief(t), w.operator, "example/other"); err != nil {
		t.Errorf("%s: a third credential: %v", what, err)
	}
	w.stop()
}

// TestS32RecordsThatWereSwapped exchanges two sealed records, of each kind, while the broker is stopped. Neither is trusted, the rest is
// served, and once they are back in place nothing is lost.
func TestS32RecordsThatWereSwapped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	w.add("example/other")
	w.stop()
	for _, bucket := range []string{"index", "credential", "grant"} {
		w.swap(bucket, "example/one", "example/pulse")
		w.untrusted(t, bucket, "example/one", "example/pulse")
		w.swap(bucket, "example/one", "example/pulse")
	}
	before := w.exchanges()
	w.swap("token", "example/one", "example/pulse") // of these new ones can be had
	w.start()
	for _, name := range []string{"example/one", "example/pulse"} {
		if tok, err := get(brief(t), w.operator, name); err == nil && w.exchanges() == before {
			t.Errorf("%s: got generation %d of a token that was swapped", name, tok.GetGeneration())
		}
	}
	w.stop()
	w.swap("token", "example/one", "example/pulse")
	w.served(t, "example/one", "example/pulse", "example/other")
	w.stop()
	w.clumsily(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("token")).Put([]byte("x"), []byte("y")) })
	if says := w.refused(); !strings.Contains(says, "damaged") {
		t.Errorf("got %.300q after a tool that knows nothing of the store wrote to it, want a refusal", says)
	}
}

// served wants that a broker that is started has tokens of all names.
func (w *world) served(t testing.TB, names ...string) {
	t.Helper()
	w.start()
	for _, name := range names {
		if _, err := get(brief(t), w.operator, name); err != nil {
			t.Errorf("%s, with everything in its place: %v", name, err)
		}
	}
}

// TestS32ARecordOfBefore puts the record of an earlier day in the place of today's.
func TestS32ARecordOfBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{life: 4 * time.Second})
	w.add("example/other")
	w.stop()
	for _, bucket := range []string{"credential", "grant", "index"} {
		var key, old, now []byte
		w.database(func(tx *bbolt.Tx) error { key, old = recordIn(tx, bucket, "example/one"); return nil })
		w.start()
		w.toggle("example/one")
		w.refreshed("example/one")
		w.stop()
		put := func(value []byte) {
			w.database(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put(key, value) })
		}
		w.database(func(tx *bbolt.Tx) error { _, now = recordIn(tx, bucket, "example/one"); return nil })
		if bytes.Equal(old, now) {
			t.Fatalf("%s: the record did not change, so this shows nothing", bucket)
		}
		put(old)
		w.untrusted(t, bucket+" of before", "example/one")
		put(now)
	}
	w.served(t, "example/one", "example/other")
}

// refreshed waits until a credential has another token than now.
func (w *world) refreshed(name string) {
	w.t.Helper()
	first, err := get(brief(w.t), w.operator, name)
	must(w.t, err)
	eventually(w.t, "the next token of "+name, func() bool {
		tok, err := get(brief(w.t), w.operator, name)
		return err == nil && tok.GetGeneration() > first.GetGeneration()
	})
}

// TestS32AStoreOfAnotherNode takes the file to a node with another key, and gives it another node's. Both are refused and left as they are.
func TestS32AStoreOfAnotherNode(t *testing.T) {
	t.Parallel()
	here, there := newWorld(t, plan{}), newWorld(t, plan{})
	here.stop()
	there.stop()
	ours, theirs := here.read("tokenbroker.db"), there.read("tokenbroker.db")
	there.write("tokenbroker.db", ours)
	before := sha256.Sum256([]byte(ours))
	says := there.refused()
	if !strings.Contains(says, "key") || strings.Contains(says, "goroutine ") {
		t.Errorf("got %.400q, want a word about the key", says)
	}
	if got := sha256.Sum256([]byte(there.read("tokenbroker.db"))); got != before {
		t.Error("the file that was refused has changed")
	}
	there.write("tokenbroker.db", theirs)
	there.served(t, "example/one", "example/pulse")
	// A record of one store in the other, under the same name.
	there.stop()
	var value []byte
	here.database(func(tx *bbolt.Tx) error { _, value = recordIn(tx, "grant", "example/one"); return nil })
	there.database(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("grant")).Put([]byte("example/one"), value) })
	there.start()
	if _, err := get(brief(t), there.operator, "example/one"); err == nil {
		t.Error("got a token of a grant from another store")
	}
	if _, err := get(brief(t), there.operator, "example/pulse"); err != nil {
		t.Errorf("another credential: %v", err)
	}
}

// TestS32BitsThatFlipped changes one bit of each sealed record in turn.
func TestS32BitsThatFlipped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	w.add("example/other")
	w.stop()
	whole := w.read("tokenbroker.db")
	for _, bucket := range []string{"index", "credential", "grant"} {
		w.database(func(tx *bbolt.Tx) error {
			k, v := recordIn(tx, bucket, "example/one")
			v[len(v)/2] ^= 0x10
			return tx.Bucket([]byte(bucket)).Put(k, v)
		})
		w.untrusted(t, "a bit of "+bucket, "example/one")
		must(t, os.WriteFile(w.path("tokenbroker.db"), []byte(whole), 0o600))
	}
	w.served(t, "example/one", "example/pulse", "example/other")
}
