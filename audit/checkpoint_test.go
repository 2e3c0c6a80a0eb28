package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/audit"
)

// newSigner returns a signer and its public key.
func newSigner(t *testing.T) (*audit.Signer, ed25519.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	s, err := audit.NewSigner(private)
	must(t, err)
	return s, public
}

// kinds says which lines are checkpoints.
func kinds(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	for _, e := range parse(t, text) {
		b.WriteString(map[bool]string{true: "C", false: "r"}[e.Kind == audit.KindCheckpoint])
	}
	return b.String()
}

func TestACheckpointComesByCountByTimeAndAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, _ := newSigner(t)
		s := &sink{}
		l := audit.New(s, audit.Options{Checkpoints: audit.Checkpoints{Signer: signer, Records: 3}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for range 4 {
			must(t, l.Write(t.Context(), audit.Record{}))
		}
		if got := kinds(t, s.text()); got != "rrrCr" {
			t.Errorf("got %s, want one after three", got)
		}
		time.Sleep(59 * time.Second)
		if got := kinds(t, s.text()); got != "rrrCr" {
			t.Errorf("got %s, want none within a minute", got)
		}
		time.Sleep(2 * time.Second)
		if got := kinds(t, s.text()); got != "rrrCrC" {
			t.Errorf("got %s, want one after a minute", got)
		}
		time.Sleep(24 * time.Hour)
		if got := kinds(t, s.text()); got != "rrrCrC" {
			t.Errorf("got %s, want none while nothing is written", got)
		}
		must(t, l.Write(t.Context(), audit.Record{}))
		cancel()
		must(t, <-done)
		if got := kinds(t, s.text()); got != "rrrCrCrC" {
			t.Errorf("got %s, want one at the end", got)
		}
	})
}

func TestACheckpointThatCouldNotBeWrittenComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, key := newSigner(t)
		s := &sink{}
		var points bytes.Buffer
		l := run(t, failing{s}, audit.Options{Checkpoints: audit.Checkpoints{Signer: signer, Records: 100, Out: func(line []byte) { points.Write(line) }}})
		must(t, l.Write(t.Context(), audit.Record{}))
		s.set(func() { s.err = errors.New("full") })
		time.Sleep(2 * time.Minute)
		if l.Healthy() == nil || points.Len() > 0 {
			t.Errorf("got health %v and %q in the second place while nothing can be written", l.Healthy(), points.String())
		}
		s.set(func() { s.err = nil })
		time.Sleep(2 * time.Second)
		if err := l.Healthy(); err != nil || !strings.HasSuffix(s.text(), points.String()) || points.Len() == 0 {
			t.Errorf("got health %v and %q in the second place, want the checkpoint in both", err, points.String())
		}
		if r := verify(t, audit.VerifyOptions{Keys: []ed25519.PublicKey{key}}, s.text()); !r.OK() || r.Checkpoints != 1 {
			t.Errorf("got %+v", r)
		}
	})
}

// TestTheStatementIsWhatTheDocumentationSays computes it anew, as another tool would.
func TestTheStatementIsWhatTheDocumentationSays(t *testing.T) {
	s := seal(t, 10, false)
	e, err := audit.ParseEntry([]byte(s.lines[10]))
	must(t, err)
	statement := fmt.Sprintf("tokenbroker audit checkpoint 1\n%s\n%d\n%s\n%s\n%d\n%s\n", e.Trail, e.Seq, hex.EncodeToString(e.Prev[:]), e.Time.Format(time.RFC3339Nano), 7, audit.KeyID(s.key))
	if e.Checkpoint == nil || !ed25519.Verify(s.key, []byte(statement), e.Checkpoint.Signature) || !e.Signed([]ed25519.PublicKey{s.key}) {
		t.Errorf("got %+v, which is no signature of %q", e.Checkpoint, statement)
	}
}

func TestOpenSignerMakesAKeyOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.key")
	first, err := audit.OpenSigner(path)
	must(t, err)
	again, err := audit.OpenSigner(path)
	must(t, err)
	if first.KeyID() != again.KeyID() || len(first.KeyID()) != 16 {
		t.Errorf("got keys %s and %s, want one", first.KeyID(), again.KeyID())
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	public, err := audit.ParsePublicKeys([]byte(read(t, filepath.Join(filepath.Dir(path), "audit.pub"))))
	if err != nil || len(public) != 1 || audit.KeyID(public[0]) != first.KeyID() {
		t.Errorf("got %v, %v beside it, want its public key", public, err)
	}
	if got := fmt.Sprintf("%v %+v %#v %x", first, first, first, first); strings.Count(got, first.KeyID()) != 4 || len(got) > 200 {
		t.Errorf("it prints %q, want its id alone", got)
	}
	if keys, err := audit.ParsePublicKeys(append(first.PublicPEM(), seal(t, 1, false).signer.PublicPEM()...)); err != nil || len(keys) != 2 {
		t.Errorf("got %d keys, %v, want two", len(keys), err)
	}
}

func TestOpenSignerRefuses(t *testing.T) {
	good := filepath.Join(t.TempDir(), "audit.key")
	_, err := audit.OpenSigner(good)
	must(t, err)
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"a key that others may read": {read(t, good), 0o640, "chmod 600"},
		"no PEM":                     {"x", 0o600, "not one private key"},
		"a public key":               {read(t, strings.TrimSuffix(good, ".key")+".pub"), 0o600, "not one private key"},
		"two keys":                   {read(t, good) + read(t, good), 0o600, "not one private key"},
		"no PKCS #8":                 {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, "not a private key"},
	} {
		path := filepath.Join(t.TempDir(), "audit.key")
		must(t, os.WriteFile(path, []byte(tt.text), tt.mode))
		if _, err := audit.OpenSigner(path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error that says %q", name, err, tt.want)
		}
	}
	if _, err := audit.OpenSigner(filepath.Join(t.TempDir(), "no", "audit.key")); err == nil {
		t.Error("made a key in no folder")
	}
	if _, err := audit.NewSigner(nil); err == nil {
		t.Error("took no key for one")
	}
	for _, bad := range []string{"", "x", read(t, good), string(seal(t, 1, false).signer.PublicPEM()) + "x"} {
		if keys, err := audit.ParsePublicKeys([]byte(bad)); err == nil {
			t.Errorf("got %v from %q", keys, bad)
		}
	}
}

func TestASecondPlaceThatFailsIsToldOfAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{err: errors.New("unreachable")}
		var mu sync.Mutex
		failures := 0
		w := audit.NewWitness(failing{s}, audit.WitnessOptions{Max: 3, Failed: func(error) { mu.Lock(); failures++; mu.Unlock() }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		for i := range 5 { // before it runs: what comes while it tries makes it try again
			w.Take(fmt.Appendf(nil, "%d\n", i))
		}
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		if waiting, dropped := w.Waiting(); waiting != 3 || dropped != 2 || !errors.Is(w.Healthy(), s.err) {
			t.Errorf("got %d waiting, %d dropped, health %v", waiting, dropped, w.Healthy())
		}
		time.Sleep(30*time.Second + time.Millisecond)
		s.set(func() { s.err = nil })
		mu.Lock()
		if failures != 4 {
			t.Errorf("got %d failures in 30s, want one and three retries", failures)
		}
		mu.Unlock()
		time.Sleep(10 * time.Second)
		if got := s.text(); got != "2\n3\n4\n" || w.Healthy() != nil {
			t.Errorf("got %q, %v after it came back, want what waited", got, w.Healthy())
		}
		s.set(func() { s.err = errors.New("gone") })
		w.Take([]byte("5\n"))
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, s.err) {
			t.Errorf("got %v at the end, want that something was not brought away", err)
		}
	})
}

func TestASecondPlaceThatHangsHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, _ := newSigner(t)
		away := &sink{hang: make(chan struct{})}
		w := audit.NewWitness(away, audit.WitnessOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		s := &sink{}
		l := run(t, s, audit.Options{Checkpoints: audit.Checkpoints{Signer: signer, Records: 1, Out: w.Take}})
		for range 50 {
			must(t, l.Write(t.Context(), audit.Record{}))
		}
		time.Sleep(11 * time.Second)
		if err := w.Healthy(); err == nil || !strings.Contains(err.Error(), "has hung") || l.Healthy() != nil {
			t.Errorf("got %v and %v, want that the second place hangs and the log does not", err, l.Healthy())
		}
		close(away.hang)
		synctest.Wait()
		if got := strings.Count(away.text(), "\n"); got != 50 || w.Healthy() != nil {
			t.Errorf("got %d checkpoints, %v after it came back", got, w.Healthy())
		}
		cancel()
		must(t, <-done)
	})
}
