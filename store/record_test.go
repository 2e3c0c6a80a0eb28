package store

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
)

// White-box: the payloads are private, and this is the one place where bytes from disk are parsed.

func payloads() []payload {
	return []payload{
		&indexRecord{}, &credentialRecord{}, &grantRecord{}, &tokenRecord{}, &clientIndexRecord{}, &clientRecord{},
		&orphanRecord{}, &numbersRecord{}, &probeRecord{}, &consentRecord{}, &usageRecord{},
	}
}

func TestDecodeIsStrict(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", ``, "does not decode"},
		{"no version", `{}`, "payload version 0"},
		{"newer version", `{"v":4}`, "payload version 4"},
		{"unknown field", `{"v":1,"boot":1,"bound":2,"shoe":3}`, "does not decode"},
		{"two values", `{"v":1}{"v":1}`, "bytes after its end"},
		{"not an object", `[1]`, "does not decode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := decode([]byte(tt.text), &numbersRecord{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error: got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestDecodeErrorsDoNotQuoteWhatTheyRead(t *testing.T) {
	for _, text := range []string{`{"v":1,"access_token":"s3cret`, `{"v":1,"s3cret":1}`, `{"v":1,"expiry":"s3cret"}`, `{"v":1,"access_token":"s3cret!"}`} {
		if err := decode([]byte(text), &tokenRecord{}); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v, want an error without the secret", text, err)
		}
	}
}

// FuzzDecode feeds arbitrary bytes to every payload: an error, or a value that survives being written again.
func FuzzDecode(f *testing.F) {
	for _, p := range payloads() {
		b, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Replace(b, []byte(`"v":0`), []byte(`"v":1`), 1))
	}
	f.Add([]byte(`{"v":1,"uid":"u","state":"READY","refresh_token":"AAH/","intent":{"attempt":"a","serial":1,"token_hash":"AA==","variant":{"scopes":["x"]},"begun":"2026-03-01T12:00:00Z","sends":1},"tokens":{"h":{"number":3,"expiry":"2026-03-01T12:00:00Z"}}}`))
	f.Add([]byte(`{"v":1,"uid":"u","serial":1,"time":"2026-03-01T12:00:00+01:00","token":{"v":1,"access_token":"AA=="}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for i, p := range payloads() {
			if decode(b, p) != nil {
				continue
			}
			again, err := encode(p)
			if err != nil {
				continue // a time zone that can be read but not written; the store writes UTC alone
			}
			q := payloads()[i]
			if err := decode(again, q); err != nil {
				t.Fatalf("%T: %q decodes, but what it encodes to, %q, does not: %v", p, b, again, err)
			}
			third, err := encode(q)
			if err != nil || !bytes.Equal(again, third) {
				t.Fatalf("%T: %q became %q, %v", p, again, third, err)
			}
		}
	})
}

// FuzzOpen feeds arbitrary record bytes to the sealer: always tampered, never a panic.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, uint64(0))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 3}, uint64(3))
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3}, uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, number uint64) {
		s := sealer{ring: testRing(t), storeID: "s"}
		if plain, _, err := s.open(Entry{Key: Key{bucketGrant, "a"}, Value: b, Rev: 1}, number); err == nil {
			t.Fatalf("%x opened as %q", b, plain)
		}
	})
}

func TestARecordOfAnEarlierVersionJudgesExtraScopes(t *testing.T) {
	for _, v := range []string{"1", "2"} {
		var r credentialRecord
		text := `{"v":` + v + `,"uid":"u","provider":"p","client":"c","grant":"client_credentials","created":"2026-03-01T12:00:00Z","updated":"2026-03-01T12:00:00Z","version":1,"generation":1}`
		if err := decode([]byte(text), &r); err != nil || r.credential("a").Extra != tokenbroker.ExtraScopesJudge {
			t.Errorf("version %s: got %q, %v", v, r.Extra, err)
		}
	}
}

func TestEveryPayloadNamesItsVersion(t *testing.T) {
	for _, p := range payloads() {
		if f, ok := reflect.TypeOf(p).Elem().FieldByName("V"); !ok || f.Tag.Get("json") != "v" {
			t.Errorf("%T has no version", p)
		}
	}
}
