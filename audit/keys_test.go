package audit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/audit"
)

// rotate makes a key and returns the list that was kept.
func rotate(t *testing.T, k *audit.Keys, now time.Time) (list [][]byte) {
	t.Helper()
	must(t, k.Rotate(now, func(all [][]byte) error { list = all; return nil }))
	return list
}

func newKeys(t *testing.T, list [][]byte) *audit.Keys {
	t.Helper()
	k, err := audit.NewKeys(list)
	must(t, err)
	return k
}

func TestATokenIsNamedUnderTheNewestKeyAndFoundUnderAll(t *testing.T) {
	k := newKeys(t, nil)
	if k.MAC("token") != "" || len(k.MACs("token")) != 0 || !k.Due(noon) {
		t.Error("without a key there is a MAC, or no need of a key")
	}
	rotate(t, k, noon)
	first := k.MAC("token")
	if !regexp.MustCompile(`^k1:[A-Za-z0-9_-]{24}$`).MatchString(first) {
		t.Errorf("got %q, want k1: and 144 bits", first)
	}
	list := rotate(t, k, noon)
	if got := k.MAC("token"); got == first || !strings.HasPrefix(got, "k2:") {
		t.Errorf("got %q under the second key, after %q", got, first)
	}
	again := newKeys(t, list)
	if got, want := again.MACs("token"), []string{k.MAC("token"), first}; !slices.Equal(got, want) {
		t.Errorf("got %q from the stored keys, want %q", got, want)
	}
	if k.MAC("token") == k.MAC("other") || k.MAC("") != "" || k.MACs("") != nil {
		t.Error("two tokens have one name, or no token has one")
	}
}

func TestAKeyThatCouldNotBeKeptIsNotUsed(t *testing.T) {
	k := newKeys(t, nil)
	rotate(t, k, noon)
	full := errors.New("full")
	if err := k.Rotate(noon, func([][]byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("got %v, want the error of the store", err)
	}
	if got := k.MAC("token"); !strings.HasPrefix(got, "k1:") {
		t.Errorf("got %q, want the key that was kept", got)
	}
}

func TestAKeyIsDueEachQuarter(t *testing.T) {
	k := newKeys(t, nil)
	rotate(t, k, time.Date(2026, 3, 31, 23, 0, 0, 0, time.UTC))
	for at, want := range map[string]bool{"2026-03-31T23:59:59Z": false, "2026-04-01T00:00:00Z": true, "2027-01-01T00:00:00Z": true, "2025-12-31T00:00:00Z": false} {
		now, err := time.Parse(time.RFC3339, at)
		must(t, err)
		if got := k.Due(now); got != want {
			t.Errorf("at %s: got %v, want %v", at, got, want)
		}
	}
}

func TestNewKeysRefuses(t *testing.T) {
	k := newKeys(t, nil)
	rotate(t, k, noon)
	list := rotate(t, k, noon)
	for name, bad := range map[string][][]byte{
		"a short key": {list[0][:20]}, "an empty key": {nil}, "two in the wrong order": {list[1], list[0]}, "one twice": {list[0], list[0]}, "number 0": {make([]byte, 44)},
	} {
		if _, err := audit.NewKeys(bad); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestKeysDoNotShow(t *testing.T) {
	k := newKeys(t, nil)
	key := rotate(t, k, noon)[0][12:]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if got := fmt.Sprintf(verb, k); got != "[redacted]" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	if out, err := json.Marshal(k); err == nil || strings.Contains(string(out), fmt.Sprintf("%x", key)) {
		t.Errorf("got %s, %v, want a refusal", out, err)
	}
}

func TestKeysRotateWhileTheyAreUsed(t *testing.T) {
	k := newKeys(t, nil)
	rotate(t, k, noon)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if !slices.Contains(k.MACs("token"), k.MAC("token")) && !strings.HasPrefix(k.MAC("token"), "k") {
					t.Error("a MAC is not among the MACs")
				}
			}
		})
	}
	for range 10 {
		rotate(t, k, noon)
	}
	wg.Wait()
	if got := len(k.MACs("token")); got != 11 {
		t.Errorf("got %d MACs, want 11", got)
	}
}

func BenchmarkMAC(b *testing.B) {
	k, err := audit.NewKeys(nil)
	must(b, err)
	must(b, k.Rotate(noon, func([][]byte) error { return nil }))
	token := strings.Repeat("x", 1200)
	b.ReportAllocs()
	for b.Loop() {
		k.MAC(token)
	}
}
