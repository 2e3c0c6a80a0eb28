package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tokenbroker/tokenbroker/audit"
)

func TestALineOfVersion1IsRead(t *testing.T) {
	got, err := audit.ParseEntry([]byte(`{"v":1,"seq":9,"time":"2026-01-02T11:00:00.000005Z","kind":"call","scopes_asked":["s","\u0001"],"decision":"allow","latency_us":1500}` + "\n"))
	must(t, err)
	want := audit.Entry{Seq: 9, Record: audit.Record{Time: noon.UTC(), Kind: audit.KindCall, ScopesAsked: []string{"s", "\x01"}, Decision: audit.Allow, Latency: 1500 * time.Microsecond}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(audit.Record{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWhatANewerBrokerAddsIsPassedOver(t *testing.T) {
	line := strings.Replace(line(7), `,"prev"`, `,"new":{"a":[1,null,{"b":"}"}]},"newer":-1.5e3,"newest":"x","prev"`, 1)
	if e, err := audit.ParseEntry([]byte(line)); err != nil || e.Seq != 7 || e.Trail != "t" {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestWhatIsNoRecordIsRefused(t *testing.T) {
	for name, bad := range map[string]string{
		"nothing":           "",
		"no object":         `[1]`,
		"two objects":       line(1) + line(2),
		"a field twice":     `{"v":1,"seq":1,"seq":2,"time":"2026-01-02T11:00:00Z"}`,
		"no comma":          `{"v":1"seq":1}`,
		"no colon":          `{"v"1}`,
		"no number":         `{"v":1,"seq":"1","time":"2026-01-02T11:00:00Z"}`,
		"a leading zero":    `{"v":1,"seq":01,"time":"2026-01-02T11:00:00Z"}`,
		"too large":         `{"v":1,"seq":18446744073709551616,"time":"2026-01-02T11:00:00Z"}`,
		"no time":           `{"v":1,"seq":1}`,
		"no real time":      `{"v":1,"seq":1,"time":"yesterday"}`,
		"no seq":            `{"v":1,"time":"2026-01-02T11:00:00Z"}`,
		"version 0":         `{"seq":1,"time":"2026-01-02T11:00:00Z"}`,
		"version 3":         `{"v":3,"seq":1,"time":"2026-01-02T11:00:00Z"}`,
		"no chain":          `{"v":2,"seq":1,"time":"2026-01-02T11:00:00Z"}`,
		"a strange trail":   strings.Replace(line(1), `"t"`, `"t t"`, 1),
		"a short hash":      strings.Replace(line(1), `"prev":"00`, `"prev":"`, 1),
		"an upper-case one": strings.Replace(line(1), `"prev":"00`, `"prev":"AB`, 1),
		"a list of no text": `{"v":1,"seq":1,"time":"2026-01-02T11:00:00Z","scopes_asked":[1]}`,
		"an open list":      `{"v":1,"seq":1,"time":"2026-01-02T11:00:00Z","streams":[1`,
		"a list of nothing": `{"v":1,"seq":1,"time":"2026-01-02T11:00:00Z","streams":[1 2]}`,
		"an open string":    `{"v":1,"seq":1,"time":"2026`,
		"an open escape":    `{"v":1,"seq":1,"peer":"\`,
		"a false escape":    `{"v":1,"seq":1,"peer":"\x"}`,
		"a control":         "{\"v\":1,\"seq\":1,\"peer\":\"\x01\"}",
		"not UTF-8":         "{\"v\":1,\"seq\":1,\"peer\":\"\xff\"}",
		"no value":          `{"v":1,"seq":1,"unknown":}`,
		"white space":       `{"v":1, "seq":1,"time":"2026-01-02T11:00:00Z"}`,
		"a bad signature":   `{"v":1,"seq":1,"time":"2026-01-02T11:00:00Z","sig":"?"}`,
	} {
		if e, err := audit.ParseEntry([]byte(bad)); err == nil {
			t.Errorf("%s: got %+v and no error", name, e)
		}
	}
}

// FuzzParseEntry wants that what is read and written again is read as the same.
func FuzzParseEntry(f *testing.F) {
	f.Add(line(1))
	f.Add(chained("t", 3, 3))
	f.Add(`{"v":1,"seq":9,"time":"2026-01-02T11:00:00.000005Z","kind":"call","scopes_asked":["s","\u0001"],"streams":[1,2],"latency_us":1500}`)
	f.Add(`{"v":2,"trail":"a","seq":9,"time":"2026-01-02T11:00:00Z","kind":"checkpoint","head":"` + strings.Repeat("0", 64) + `","store":3,"key":"k","sig":"AAAA","prev":"` +
		strings.Repeat("0", 64) + `","hash":"` + strings.Repeat("0", 64) + `"}`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := audit.ParseEntry([]byte(text))
		if err != nil || e.Trail == "" || e.Time.Year() < 0 || e.Time.Year() > 9999 {
			return
		}
		again := e
		got, err := audit.ParseEntry(again.AppendLine(nil))
		if err != nil {
			t.Fatalf("%v in %q, from %q", err, again.AppendLine(nil), text)
		}
		if diff := cmp.Diff(again, got, cmpopts.IgnoreUnexported(audit.Record{})); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func BenchmarkParseEntry(b *testing.B) {
	text := []byte(line(7))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := audit.ParseEntry(text); err != nil {
			b.Fatal(err)
		}
	}
}
