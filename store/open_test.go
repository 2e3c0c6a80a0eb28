package store_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/store"
)

func TestEachOpenRaisesTheBootCount(t *testing.T) {
	p := newPlace(t)
	for want := uint64(1); want <= 3; want++ {
		if got := p.open(t).Boot(); got != want {
			t.Errorf("boot: got %d, want %d", got, want)
		}
		p.stop(t)
	}
}

func TestTheWrongKeyIsRefusedAndTheFileStaysByteIdentical(t *testing.T) {
	p := newPlace(t)
	create(t, p.open(t), "a")
	before := p.stop(t)
	right, wrong := p.kek, newKEK(t)
	_, err := store.Open(t.Context(), p.start(t), store.Options{KEK: wrong})
	if !errors.Is(err, keyring.ErrWrongKey) || !strings.Contains(err.Error(), right.ID()) || !strings.Contains(err.Error(), wrong.ID()) {
		t.Errorf("wrong key: got %v, want ErrWrongKey naming %s and %s", err, right.ID(), wrong.ID())
	}
	if _, err := store.Open(t.Context(), p.engine, store.Options{}); err == nil || !strings.Contains(err.Error(), "configure the key file") {
		t.Errorf("no key: got %v, want what to do", err)
	}
	if !bytes.Equal(before, p.stop(t)) {
		t.Error("the file changed")
	}
	load(t, p.open(t), "a")
}

func TestAnEmptyEngineWithoutAKeyStaysEmpty(t *testing.T) {
	p := newPlace(t)
	if _, err := store.Open(t.Context(), p.start(t), store.Options{}); err == nil {
		t.Error("opened without a key")
	}
	if s, err := p.engine.Read(t.Context()); err != nil || s.Rev != 0 {
		t.Errorf("engine: got revision %d, %v, want nothing written", s.Rev, err)
	}
}

func TestANewerSchemaIsRefusedAndTheFileStaysByteIdentical(t *testing.T) {
	p := newPlace(t)
	create(t, p.open(t), "a")
	rewrite(t, p.engine, store.Key{Bucket: "meta", Name: "head"}, func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"schema":1`), []byte(`"schema":7`), 1)
	})
	before := p.stop(t)
	_, err := store.Open(t.Context(), p.start(t), store.Options{KEK: p.kek})
	if !errors.Is(err, store.ErrNewerSchema) || !strings.Contains(err.Error(), "schema 7, this program knows 1") {
		t.Errorf("error: got %v, want ErrNewerSchema naming 7 and 1", err)
	}
	if !bytes.Equal(before, p.stop(t)) {
		t.Error("the file changed")
	}
}

func TestNoNewKeysOverAStoreThatHoldsRecords(t *testing.T) {
	for _, lost := range []string{"head", "keyset", "numbers"} {
		t.Run("without "+lost, func(t *testing.T) {
			p := newPlace(t)
			create(t, p.open(t), "a")
			drop(t, p.engine, store.Key{Bucket: "meta", Name: lost})
			before := p.stop(t)
			if _, err := store.Open(t.Context(), p.start(t), store.Options{KEK: p.kek}); err == nil {
				t.Error("opened")
			}
			if !bytes.Equal(before, p.stop(t)) {
				t.Error("the file changed")
			}
		})
	}
	p := newPlace(t)
	create(t, p.open(t), "a")
	for _, name := range []string{"head", "keyset", "numbers"} {
		drop(t, p.engine, store.Key{Bucket: "meta", Name: name})
	}
	if _, err := store.Open(t.Context(), p.engine, store.Options{KEK: p.kek}); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("without any of them: got %v, want ErrDamaged", err)
	}
}

func TestAChangedHeadIsRefused(t *testing.T) {
	for _, text := range []string{"", "{}", `{"schema":1,"store_id":"another"}`, `{"schema":0,"store_id":"x"}`} {
		p := newPlace(t)
		p.open(t)
		rewrite(t, p.engine, store.Key{Bucket: "meta", Name: "head"}, func([]byte) []byte { return []byte(text) })
		_, err := store.Open(t.Context(), p.engine, store.Options{KEK: p.kek})
		if !errors.Is(err, store.ErrDamaged) && !errors.Is(err, keyring.ErrDamaged) {
			t.Errorf("head %q: got %v, want ErrDamaged", text, err)
		}
	}
}

func TestSecretsAreNotInTheFile(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := create(t, s, "a")
	o := outcome(c, 1, "", "canary-access", "canary-refresh")
	o.Variant.Subject = "canary-subject"
	commit(t, s, o)
	o.RefreshToken = canary("canary-orphan")
	if _, _, err := s.Commit(t.Context(), o); err == nil {
		t.Error("a second commit of the same serial went through")
	}
	if _, err := s.PutClient(t.Context(), client("app"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteCredential(t.Context(), "a", 0); err != nil {
		t.Fatal(err)
	}
	file := p.stop(t)
	for _, word := range []string{"canary", "rt-1", "example.test", "reports"} {
		if bytes.Contains(file, []byte(word)) {
			t.Errorf("%q is in the file", word)
		}
	}
}

func TestProveWrites(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	before, err := p.engine.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := p.engine.Read(t.Context())
	if err != nil || after.Rev <= before.Rev {
		t.Errorf("revision: got %d after %d, %v, want it to rise", after.Rev, before.Rev, err)
	}
}

func TestAStoreFileIsPrivate(t *testing.T) {
	p := newPlace(t)
	p.open(t)
	if info, err := os.Stat(p.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
}

// raw reads one entry under the store.
func raw(t testing.TB, e store.Engine, k store.Key) store.Entry {
	t.Helper()
	s, err := e.Read(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return s.Entries[0]
}

// rewrite changes one value under the store.
func rewrite(t testing.TB, e store.Engine, k store.Key, edit func([]byte) []byte) {
	t.Helper()
	if _, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: k, Value: edit(raw(t, e, k).Value)}}}); err != nil {
		t.Fatal(err)
	}
}

func drop(t testing.TB, e store.Engine, k store.Key) {
	t.Helper()
	if _, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: k, Delete: true}}}); err != nil {
		t.Fatal(err)
	}
}
