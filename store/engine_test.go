package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/store"
)

func TestTxnCheckRefusesWhatNoEngineTakes(t *testing.T) {
	key := store.Key{Bucket: "test", Name: "k"}
	op := func(k store.Key, n int) store.Op { return store.Op{Key: k, Value: make([]byte, n)} }
	longest := store.Key{Bucket: strings.Repeat("b", store.MaxBucketBytes), Name: strings.Repeat("\x00", store.MaxNameBytes)}
	var many []store.Op
	for i := range store.MaxOps {
		many = append(many, op(store.Key{Bucket: "test", Name: strings.Repeat("k", i%1000+1) + string(rune('a'+i/1000))}, 0))
	}
	for _, tt := range []struct {
		name string
		txn  store.Txn
		want string // "" = none
	}{
		{"nothing", store.Txn{}, ""},
		{"the longest key and the largest value", store.Txn{Do: []store.Op{op(longest, store.MaxValueBytes)}}, ""},
		{"the most writes", store.Txn{Do: many}, ""},
		{"a write more", store.Txn{Do: append(many, op(key, 0))}, "4097 writes, at most 4096"},
		{"no bucket", store.Txn{Do: []store.Op{op(store.Key{Name: "k"}, 0)}}, `bucket "" is not 1 to 64 letters`},
		{"a long bucket", store.Txn{Do: []store.Op{op(store.Key{Bucket: longest.Bucket + "b", Name: "k"}, 0)}}, "is not 1 to 64 letters"},
		{"an engine's own bucket", store.Txn{Do: []store.Op{op(store.Key{Bucket: "!revision", Name: "k"}, 0)}}, `bucket "!revision"`},
		{"capitals", store.Txn{Do: []store.Op{op(store.Key{Bucket: "Test", Name: "k"}, 0)}}, `bucket "Test"`},
		{"no name", store.Txn{Do: []store.Op{op(store.Key{Bucket: "test"}, 0)}}, "has 0 bytes, 1 to 1024"},
		{"a long name", store.Txn{Do: []store.Op{op(store.Key{Bucket: "test", Name: longest.Name + "k"}, 0)}}, "has 1025 bytes"},
		{"a large value", store.Txn{Do: []store.Op{op(key, store.MaxValueBytes+1)}}, `value of test "k" has 1048577 bytes`},
		{"a key twice", store.Txn{Do: []store.Op{op(key, 1), {Key: key, Delete: true}}}, `test "k" is written twice`},
		{"a compare of no key", store.Txn{If: []store.Compare{{Key: store.Key{Bucket: "test"}}}}, "has 0 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.txn.Check()
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, store.ErrBadTxn) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
