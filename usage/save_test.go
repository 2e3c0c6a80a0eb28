package usage_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/usage"
)

// keeper keeps documents in memory, and fails on demand.
type keeper struct {
	kept  map[string][]byte
	wrote int
	fails error
}

func (k *keeper) Usage(_ context.Context, visit func(string, []byte)) error {
	for name, text := range k.kept {
		visit(name, text)
	}
	return k.fails
}

func (k *keeper) PutUsage(_ context.Context, documents map[string][]byte) error {
	if k.fails != nil {
		return k.fails
	}
	if k.kept == nil {
		k.kept = map[string][]byte{}
	}
	maps.Copy(k.kept, documents)
	maps.DeleteFunc(k.kept, func(_ string, text []byte) bool { return text == nil })
	k.wrote += len(documents)
	return nil
}

func load(t *testing.T, k *keeper) *usage.Book {
	t.Helper()
	b := usage.New(noon.Add(1000 * time.Hour))
	if err := b.Load(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	return b
}

func save(t *testing.T, b *usage.Book, k *keeper) {
	t.Helper()
	if err := b.Save(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsSavedOutlivesARestart(t *testing.T) {
	b, k := usage.New(noon), &keeper{}
	b.Use("a", job, "jobs").Mark(noon)
	b.Use("b/c", other, "others").Mark(noon.Add(time.Minute))
	save(t, b, k)
	again := load(t, k)
	for _, name := range []string{"a", "b/c"} {
		if diff := cmp.Diff(b.Users(name), again.Users(name)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(b.Rules(), again.Rules()); diff != "" || !again.Since().Equal(noon) {
		t.Errorf("since %v; rules (-want +got)\n%s", again.Since(), diff)
	}
}

func TestSinceIsKeptAlsoIfNothingWasUsed(t *testing.T) {
	k := &keeper{}
	save(t, usage.New(noon), k)
	if got := load(t, k).Since(); !got.Equal(noon) {
		t.Errorf("got %v, want %v", got, noon)
	}
}

func TestOnlyWhatChangedIsSaved(t *testing.T) {
	b, k := usage.New(noon), &keeper{}
	a, c := b.Use("a", job, "jobs"), b.Use("c", job, "jobs")
	a.Mark(noon)
	c.Mark(noon)
	save(t, b, k)
	first := k.wrote
	a.Mark(noon) // the same minute
	save(t, b, k)
	if k.wrote != first {
		t.Errorf("%d documents were written, and nothing had changed", k.wrote-first)
	}
	a.Mark(noon.Add(time.Minute))
	save(t, b, k)
	if k.wrote != first+2 {
		t.Errorf("got %d documents written, want that of a and that of the rules", k.wrote-first)
	}
}

func TestWhatIsForgottenIsForgottenAlsoAfterARestart(t *testing.T) {
	b, k := usage.New(noon), &keeper{}
	b.Use("a", job, "jobs").Mark(noon)
	b.Use("c", job, "jobs").Mark(noon)
	save(t, b, k)
	b.Forget("a")
	save(t, b, k)
	again := load(t, k)
	if len(again.Users("a")) != 0 || len(again.Users("c")) != 1 {
		t.Errorf("got %v and %v, want only c", again.Users("a"), again.Users("c"))
	}
	again.Retain(func(name string) bool { return name != "c" }) // it was deleted just before a crash
	save(t, again, k)
	if _, ok := k.kept["c"]; ok || len(again.Users("c")) != 0 {
		t.Error("the credential that is not there any more is kept")
	}
}

func TestAFailedSaveIsMadeUpFor(t *testing.T) {
	b, k := usage.New(noon), &keeper{}
	b.Use("a", job, "jobs").Mark(noon)
	b.Use("gone", job, "jobs").Mark(noon)
	save(t, b, k)
	b.Use("a", job, "jobs").Mark(noon.Add(time.Hour))
	b.Forget("gone")
	k.fails = errors.New("disk full")
	if err := b.Save(t.Context(), k); !errors.Is(err, k.fails) {
		t.Fatalf("got %v, want the keeper's error", err)
	}
	k.fails = nil
	save(t, b, k)
	again := load(t, k)
	if diff := cmp.Diff(b.Users("a"), again.Users("a")); diff != "" || len(again.Users("gone")) != 0 {
		t.Errorf("gone: %v; a (-want +got)\n%s", again.Users("gone"), diff)
	}
	if diff := cmp.Diff(b.Rules(), again.Rules()); diff != "" {
		t.Errorf("rules (-want +got)\n%s", diff)
	}
}

func TestWhatDoesNotReadIsLeftOut(t *testing.T) {
	k := &keeper{kept: map[string][]byte{"a": []byte(`{"v":1,"users":[{"identity":"i","rule":"r","first":1,"last":1}]}`),
		"b": []byte(`{"v":1,"shoes":2}`), "c": []byte(`{`), "!rules": []byte(`[]`)}, fails: errors.New("one is damaged")}
	b := usage.New(noon)
	err := b.Load(t.Context(), k)
	for _, want := range []string{`"b"`, `"c"`, `"!rules"`, "one is damaged"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s", err, want)
		}
	}
	if len(b.Users("a")) != 1 || len(b.Users("b")) != 0 {
		t.Errorf("got %v and %v, want what reads", b.Users("a"), b.Users("b"))
	}
}

func TestADocumentThatWouldBeTooLargeKeepsTheLatest(t *testing.T) {
	b, k := usage.New(noon), &keeper{}
	for i := range usage.MaxIdentities {
		b.Use("a", fmt.Sprint(job, i, strings.Repeat("x", 2000)), "jobs").Mark(noon.Add(time.Duration(i) * time.Minute))
	}
	save(t, b, k)
	if got := len(k.kept["a"]); got > 512<<10 {
		t.Errorf("the document has %d bytes", got)
	}
	if got, want := load(t, k).Users("a"), b.Users("a"); len(got) < 100 || got[0].Identity != want[0].Identity {
		t.Errorf("got %d users, want the latest of them", len(got))
	}
}
