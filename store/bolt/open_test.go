package bolt_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

const holdVariable = "TOKENBROKER_TEST_HOLD"

// holdFileIfAsked makes this binary the other process: it opens the file, says so, and holds it until its input ends.
func holdFileIfAsked() {
	path := os.Getenv(holdVariable)
	if path == "" {
		return
	}
	if _, err := bolt.Open(path, bolt.Options{}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func TestAFileThatAnotherProcessHoldsIsRefusedInTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), holdVariable+"="+path)
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "held\n" {
		t.Fatalf("other process: got %q, %v, want held", line, err)
	}
	start := time.Now()
	_, err = bolt.Open(path, bolt.Options{})
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("open took %s, want little more than its 3 s", took)
	}
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "another process holds it") {
		t.Errorf("error: got %v, want the path and that another process holds it", err)
	}
	if err := errors.Join(stdin.Close(), other.Wait()); err != nil {
		t.Fatal(err)
	}
	e, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatalf("after the other process ended: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheFileIsPrivateAndAloneInItsFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	for _, loosen := range []fs.FileMode{0o600, 0o644, 0o660} {
		if err := openIn(t, dir).Close(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
		}
		if err := os.Chmod(path, loosen); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("folder: got %v, %v, want the store file alone", entries, err)
	}
}

func TestOpenAndReadLeaveTheFileByteIdentical(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	e := openIn(t, dir)
	put(t, e, "k", bytes.Repeat([]byte("v"), 10_000))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	before := content(t, path)
	e = openIn(t, dir)
	if _, err := e.List(t.Context(), "test", "", 10); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Txn(t.Context(), store.Txn{If: []store.Compare{{Key: store.Key{Bucket: "test", Name: "k"}, Rev: 77}}}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("compare: got %v, want ErrConflict", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, content(t, path)) {
		t.Error("opening and reading changed the file")
	}
}

func TestDamagedFilesAreErrorsNotPanics(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "store.db")
	e := openIn(t, filepath.Dir(whole))
	for i := range 50 {
		put(t, e, fmt.Sprint(i), bytes.Repeat([]byte("v"), 3000))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	good := content(t, whole)
	used := bytes.LastIndex(good, []byte("vvvv")) // the rest is not in use
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "is empty"},
		{"text", []byte(strings.Repeat("not a store\n", 1000)), "invalid"},
		{"cut in the header", good[:5000], ""},
		{"cut in the middle", good[:used/2], "restore it from a backup"},
		{"both heads overwritten", slices.Concat(make([]byte, 8192), good[8192:]), ""},
		{"pages overwritten", slices.Concat(good[:8192], bytes.Repeat([]byte{0xff}, len(good)-8192)), "damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			e, err := bolt.Open(path, bolt.Options{Timeout: time.Second})
			if err == nil {
				_ = e.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error: got %v, want the path and %q", err, tt.want)
			}
		})
	}
}

func TestDamageBehindTheHeadIsAnErrorOfTheRead(t *testing.T) {
	dir := t.TempDir()
	e := openIn(t, dir)
	for i := range 200 {
		put(t, e, fmt.Sprintf("%03d", i), bytes.Repeat([]byte("v"), 300))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.db")
	data := content(t, path)
	for i := 0; i+4096 <= len(data); i += 4096 {
		if bytes.Contains(data[i:i+4096], []byte("vvvv")) {
			copy(data[i:], bytes.Repeat([]byte{0xff}, 64)) // page heads of leaves
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	e = openIn(t, dir)
	if _, err := e.List(t.Context(), "test", "", 1000); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("list: got %v, want that the file is damaged", err)
	}
	for range 2 { // the second must not wait for what the first left locked
		_, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: store.Key{Bucket: "test", Name: "100"}, Value: []byte("w")}}})
		if err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("write: got %v, want that the file is damaged", err)
		}
	}
	if err := e.Close(); err == nil {
		t.Error("close: got nil, want that the file is damaged")
	}
}

// TestAPageThatTheDiskLostDoesNotMakeAnOlderFile puts an older page back under the newest meta page, as a disk does that says it
// synced and did not. What bbolt shows then is an older state, or an empty one, in which a store would begin anew.
func TestAPageThatTheDiskLostDoesNotMakeAnOlderFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	e := openIn(t, dir)
	files := [][]byte{content(t, path)}
	for i := range 8 {
		put(t, e, fmt.Sprint(i), []byte("v"))
		files = append(files, content(t, path))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	size := os.Getpagesize()
	newest := files[len(files)-1]
	refused := 0
	for i, older := range files[:len(files)-1] {
		image := bytes.Clone(newest)
		copy(image[2*size:], older[min(2*size, len(older)):])
		if bytes.Equal(image, newest) {
			continue
		}
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := bolt.Open(path, bolt.Options{})
		if err == nil {
			s, lerr := e.List(t.Context(), "test", "", 100)
			t.Errorf("pages of transaction %d: got %d entries at revision %d, %v, want the file refused", i, len(s.Entries), s.Rev, errors.Join(lerr, e.Close()))
			continue
		}
		if refused++; !strings.Contains(err.Error(), "damaged") {
			t.Errorf("pages of transaction %d: got %v, want that the file is damaged", i, err)
		}
	}
	if refused == 0 {
		t.Error("no image differed, so the test does not test")
	}
}

func TestOpenNeedsAFolder(t *testing.T) {
	if _, err := bolt.Open(filepath.Join(t.TempDir(), "no", "store.db"), bolt.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error: got %v, want fs.ErrNotExist", err)
	}
	if _, err := bolt.Open(t.TempDir(), bolt.Options{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: got %v, want not a regular file", err)
	}
}

func TestTwoThatCreateAtOnceUseOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			e, err := bolt.Open(path, bolt.Options{Timeout: 20 * time.Second})
			if err != nil {
				t.Error(err)
				return
			}
			rev, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: store.Key{Bucket: "test", Name: "k"}}}})
			if err := errors.Join(err, e.Close()); err != nil {
				t.Errorf("at revision %d: %v", rev, err)
			}
		})
	}
	wg.Wait()
	e := openIn(t, filepath.Dir(path))
	s, err := e.Read(t.Context())
	if err != nil || s.Rev != 4 {
		t.Errorf("revision: got %d, %v, want 4: every writer in the same file", s.Rev, err)
	}
}

func put(t testing.TB, e *bolt.Engine, name string, value []byte) uint64 {
	t.Helper()
	rev, err := e.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: store.Key{Bucket: "test", Name: name}, Value: value}}})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func content(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
