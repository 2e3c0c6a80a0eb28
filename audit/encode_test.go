package audit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 5000, time.FixedZone("", 3600))

func TestALineGolden(t *testing.T) {
	r := audit.Record{
		Time: noon, Kind: audit.KindCall, RequestID: "r1", Identity: "spiffe://example.org/job/a", Peer: "192.0.2.1:5",
		CertFingerprint: "ab12", Action: "token.get", Credential: "google/a", OAuthClient: "google/c",
		ScopesAsked: []string{"s", "t"}, ScopesGranted: []string{"s"}, Subject: "ann@example.org", Audience: "https://a.example",
		PolicyRevision: "0123", Rule: "reports", Decision: audit.Allow, Reason: "cached", Code: "OK", Provider: "google",
		Generation: 1<<48 + 7, Serial: 3, Streams: []uint64{1, 2}, Count: 4, Latency: 1500 * time.Microsecond,
	}
	e := audit.Entry{Seq: 9, Record: r, Trail: "AbCdEfGhIjK", Prev: audit.Hash{1, 0xab}}
	want := `{"v":2,"trail":"AbCdEfGhIjK","seq":9,"time":"2026-01-02T11:00:00.000005Z","kind":"call","request_id":"r1",` +
		`"identity":"spiffe://example.org/job/a","peer":"192.0.2.1:5","cert":"ab12","action":"token.get","credential":"google/a",` +
		`"oauth_client":"google/c","scopes_asked":["s","t"],"scopes_granted":["s"],"subject":"ann@example.org",` +
		`"audience":"https://a.example","policy":"0123","rule":"reports","decision":"allow","reason":"cached","code":"OK",` +
		`"provider":"google","generation":281474976710663,"serial":3,"streams":[1,2],"count":4,"latency_us":1500,` +
		`"prev":"01ab` + strings.Repeat("0", 60) + `"`
	want = fmt.Sprintf(`%s,"hash":"%x"}`, want, sha256.Sum256([]byte(want)))
	if diff := cmp.Diff(want, string(e.AppendLine(nil))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got, want := e.Hash.String(), want[len(want)-66:len(want)-2]; got != want {
		t.Errorf("got hash %s, want %s", got, want)
	}
}

func TestEveryFieldOfARecordIsWritten(t *testing.T) {
	typ := reflect.TypeFor[audit.Record]()
	for i := range typ.NumField() {
		if !typ.Field(i).IsExported() {
			continue
		}
		r := audit.Record{Time: noon}
		bare := string(encode(r, 1))
		f := reflect.ValueOf(&r).Elem().Field(i)
		switch v := f.Addr().Interface().(type) {
		case *time.Time:
			*v = noon.Add(time.Hour)
		case *time.Duration:
			*v = time.Second
		case *[]string:
			*v = []string{"x"}
		case *[]uint64:
			*v = []uint64{1}
		default:
			if f.CanUint() {
				f.SetUint(1)
			} else {
				f.SetString("x")
			}
		}
		text := encode(r, 1)
		if string(text) == bare {
			t.Errorf("field %s is not written", typ.Field(i).Name)
		}
		got, err := audit.ParseEntry(text)
		r.Time, r.Expiry = r.Time.UTC(), r.Expiry.UTC()
		if diff := cmp.Diff(r, got.Record, cmpopts.IgnoreUnexported(r)); err != nil || diff != "" {
			t.Errorf("field %s is not read back: %v (-want +got)\n%s", typ.Field(i).Name, err, diff)
		}
	}
}

func TestNoSecretGetsIntoARecord(t *testing.T) {
	typ := reflect.TypeFor[audit.Record]()
	for field := range typ.Fields() {
		for ft := field.Type; ; ft = ft.Elem() {
			if ft == reflect.TypeFor[tokenbroker.Secret]() || ft == reflect.TypeFor[tokenbroker.Token]() || ft == reflect.TypeFor[tokenbroker.Grant]() {
				t.Errorf("field %s can hold a secret", field.Name)
			}
			if ft.Kind() != reflect.Slice && ft.Kind() != reflect.Pointer {
				break
			}
		}
	}
	secret := tokenbroker.NewSecret("canary-7f3a")
	token := tokenbroker.Token{AccessToken: secret}
	r := audit.Record{
		Reason: fmt.Sprint(secret), Subject: fmt.Sprintf("%#v", secret), Audience: fmt.Sprintf("%x", secret), Code: fmt.Sprintf("%+v", token),
		ScopesAsked: []string{secret.String()},
	}
	line := string(encode(r, 1))
	if strings.Contains(line, "canary") || strings.Count(line, "[redacted]") != 5 {
		t.Errorf("got %s, want [redacted] five times", line)
	}
}

// encode makes a line of a record that stands alone.
func encode(r audit.Record, seq uint64) []byte {
	return (&audit.Entry{Seq: seq, Record: r, Trail: "t"}).AppendLine(nil)
}

func TestARecordIsOneLine(t *testing.T) {
	r := audit.Record{Identity: "a\"}\n{\"seq\":1", ScopesAsked: []string{"\r\n", "\u2028", "\xff"}}
	line := encode(r, 1)
	if bytes.ContainsAny(line, "\n\r\u2028") || !json.Valid(line) {
		t.Errorf("got %q, want one line of JSON", line)
	}
}

func FuzzAppendLine(f *testing.F) {
	for _, s := range []string{"", "plain", "a\"b\\c", "\x00\x1f\b\f\n\r\t\x7f", "\u2028\u2029", "\xff\xc3\x28\xed\xa0\x80", "ключ <&>", "\ufffd", "\U0001f511"} {
		f.Add(s, uint64(len(s)))
	}
	f.Fuzz(func(t *testing.T, s string, n uint64) {
		r := audit.Record{Time: noon, Identity: s, ScopesAsked: []string{s, s}, Serial: n, Streams: []uint64{n}}
		line := encode(r, n)
		var got struct {
			Seq      uint64
			Identity json.RawMessage
			Scopes   []string `json:"scopes_asked"`
			Serial   uint64
			Streams  []uint64
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if got.Seq != n || got.Serial != n || got.Streams[0] != n || got.Scopes[1] != strings.ToValidUTF8(s, "\ufffd") && !manyInvalid(s, got.Scopes[1]) {
			t.Errorf("got %+v for %q and %d", got, s, n)
		}
		if s == "" {
			return
		}
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			t.Fatal(err)
		}
		if w := strings.TrimSuffix(want.String(), "\n"); string(got.Identity) != w {
			t.Errorf("got %s, want %s", got.Identity, w)
		}
	})
}

// manyInvalid reports whether got is s with one replacement for each invalid byte, where ToValidUTF8 has one for a run.
func manyInvalid(s, got string) bool { return got == string([]rune(s)) }

func TestAPreparedRecordIsWrittenAsItWas(t *testing.T) {
	plain := audit.Record{Identity: "spiffe://example.org/a", Action: "token.get", ScopesGranted: []string{"s"}, Generation: 7, Expiry: noon, Code: "OK"}
	prepared := plain
	prepared.Prepare()
	for _, r := range []*audit.Record{&plain, &prepared} {
		r.Kind, r.RequestID, r.Latency, r.Time = audit.KindCall, "another", time.Hour, noon
	}
	if diff := cmp.Diff(string(encode(plain, 9)), string(encode(prepared, 9))); diff != "" {
		t.Errorf("prepared (-plain +prepared):\n%s", diff)
	}
}
