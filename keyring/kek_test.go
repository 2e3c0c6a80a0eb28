package keyring_test

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/keyring"
)

func TestGenerateFileKEKMakesAFileOnlyItsOwnerReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if err := keyring.GenerateFileKEK(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode().Perm(), fs.FileMode(0o600); got != want {
		t.Errorf("mode: got %04o, want %04o", got, want)
	}
	kek, err := keyring.FileKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := kek.ID(); len(got) != 16 {
		t.Errorf("id: got %q, want 16 hex digits", got)
	}
}

func TestGenerateFileKEKNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keyring.GenerateFileKEK(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error: got %v, want fs.ErrExist", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "precious" {
		t.Errorf("file: got %q, want it untouched", got)
	}
}

func TestGenerateFileKEKWithoutAFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "kek")
	if err := keyring.GenerateFileKEK(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error: got %v, want fs.ErrNotExist", err)
	}
}

func TestTwoKEKsHaveTwoIDs(t *testing.T) {
	if a, b := newKEK(t).ID(), newKEK(t).ID(); a == b {
		t.Errorf("both KEKs have ID %s", a)
	}
}

func TestFileKEKSaysWhatIsWrong(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	short := base64.StdEncoding.EncodeToString(make([]byte, 31))
	for _, tt := range []struct {
		name, text string
		mode       fs.FileMode
		want       string
	}{
		{"empty", "", 0o600, "is empty: put the key back"},
		{"group may read", "tokenbroker-kek-v1:" + key, 0o640, "chmod 0600"},
		{"others may write", "tokenbroker-kek-v1:" + key, 0o602, "chmod 0600"},
		{"another header", "age-key:" + key, 0o600, `does not begin with "tokenbroker-kek-v1:"`},
		{"short key", "tokenbroker-kek-v1:" + short, 0o600, "has 31 bytes instead of 32"},
		{"not base64", "tokenbroker-kek-v1:" + key[:20] + "!", 0o600, "is not base64"},
		{"two lines", "tokenbroker-kek-v1:" + key + "\nmore\n", 0o600, "more than one line"},
		{"a big file", strings.Repeat("x", 5000), 0o600, "no key file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kek")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, err := keyring.FileKEK(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error: got %v, want the path and %q", err, tt.want)
			}
			if strings.Contains(err.Error(), key[:12]) {
				t.Errorf("error holds part of the key: %v", err)
			}
		})
	}
}

func TestFileKEKTakesAnyLineEnd(t *testing.T) {
	line := "tokenbroker-kek-v1:" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	ids := map[string]bool{}
	for _, end := range []string{"", "\n", "\r\n"} {
		path := filepath.Join(t.TempDir(), "kek")
		if err := os.WriteFile(path, []byte(line+end), 0o400); err != nil {
			t.Fatal(err)
		}
		kek, err := keyring.FileKEK(path)
		if err != nil {
			t.Fatalf("line end %q: %v", end, err)
		}
		ids[kek.ID()] = true
	}
	if len(ids) != 1 {
		t.Errorf("ids: got %v, want one", ids)
	}
}

func TestFileKEKMissingOrAFolder(t *testing.T) {
	dir := t.TempDir()
	if _, err := keyring.FileKEK(filepath.Join(dir, "kek")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "put the one back") {
		t.Errorf("missing: got %v, want fs.ErrNotExist and what to do", err)
	}
	if _, err := keyring.FileKEK(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("folder: got %v, want not a regular file", err)
	}
}

func newKEK(t *testing.T) keyring.KEK {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	if err := keyring.GenerateFileKEK(path); err != nil {
		t.Fatal(err)
	}
	kek, err := keyring.FileKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}
