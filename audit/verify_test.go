package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/audit"
)

// sealed is a trail as a log wrote it.
type sealed struct {
	lines  []string // each with its line feed
	points string   // of the second place
	key    ed25519.PublicKey
	signer *audit.Signer
}

// seal writes n records, with a checkpoint behind each ten lines, and one at the end if last is set.
func seal(t testing.TB, n int, last bool) sealed {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	signer, err := audit.NewSigner(private)
	must(t, err)
	var trail, points bytes.Buffer
	l := audit.New(&trail, audit.Options{Checkpoints: audit.Checkpoints{
		Signer: signer, Records: 10, Store: func() uint64 { return 7 }, Out: func(line []byte) { points.Write(line) },
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	for i := range n {
		must(t, l.Write(context.Background(), audit.Record{Kind: audit.KindCall, RequestID: fmt.Sprint("r", i), Decision: audit.Deny}))
	}
	lines := strings.SplitAfter(trail.String(), "\n") // all is written: whoever waited was answered
	cancel()
	must(t, <-done)
	if last {
		lines = strings.SplitAfter(trail.String(), "\n")
	}
	return sealed{lines[:len(lines)-1], points.String(), public, signer}
}

// text makes a source of lines.
func text(name string, lines ...string) audit.Source {
	return audit.Source{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(strings.Join(lines, ""))), nil }}
}

// with checks lines against key and second place.
func (s sealed) with(t testing.TB, lines ...string) audit.Report {
	t.Helper()
	return verify(t, audit.VerifyOptions{Keys: []ed25519.PublicKey{s.key}, Checkpoints: []audit.Source{text("points", s.points)}}, lines...)
}

func verify(t testing.TB, opts audit.VerifyOptions, lines ...string) audit.Report {
	t.Helper()
	r, err := audit.Verify(context.Background(), []audit.Source{text("trail", lines...)}, opts)
	must(t, err)
	return r
}

// rechain computes the chain anew from a line on, as whoever rewrites a trail would. Checkpoints stay what they say.
func rechain(t testing.TB, lines []string, from int) []string {
	t.Helper()
	lines = slices.Clone(lines)
	before, err := audit.ParseEntry([]byte(lines[from-1]))
	must(t, err)
	for i := from; i < len(lines); i++ {
		e, err := audit.ParseEntry([]byte(lines[i]))
		must(t, err)
		e.Prev, e.Seq = before.Hash, before.Seq+1
		lines[i] = string(e.AppendLine(nil)) + "\n"
		before = e
	}
	return lines
}

// wantFault wants that a fault comes first, and where.
func wantFault(t *testing.T, r audit.Report, want audit.Fault, line int, seq uint64) {
	t.Helper()
	if len(r.Problems) == 0 {
		t.Fatalf("got no problem, want %s", want)
	}
	if p := r.Problems[0]; p.Fault != want || p.Line != line || p.Seq != seq || p.Text == "" {
		t.Errorf("got %+v first of %d, want %s in line %d with number %d", p, len(r.Problems)+r.More, want, line, seq)
	}
}

func TestS31AWholeTrailIsConfirmed(t *testing.T) {
	s := seal(t, 35, true)
	r := s.with(t, s.lines...)
	if !r.OK() || !r.Keyed || r.Checkpoints != 4 || r.Witnessed != 4 || r.SignedTo != 39 || r.Open != 0 || r.Lines != 39 || r.First != 1 || r.Last != 39 {
		t.Errorf("got %+v", r)
	}
	if r := s.with(t, s.lines[:37]...); r.OK() {
		t.Error("a trail that lacks its last two lines is confirmed")
	}
	r = verify(t, audit.VerifyOptions{}, s.lines[:37]...)
	if !r.OK() || r.Keyed || r.Checkpoints != 0 {
		t.Errorf("got %+v without a key, want that the chain alone holds", r)
	}
}

func TestS31EditedLines(t *testing.T) {
	s := seal(t, 35, true)
	for name, edit := range map[string]func(line string) string{
		"a decision":        func(l string) string { return strings.Replace(l, `"deny"`, `"allow"`, 1) },
		"its number":        func(l string) string { return strings.Replace(l, `"seq":5,`, `"seq":50,`, 1) },
		"its trail":         func(l string) string { return strings.Replace(l, `"trail":"`, `"trail":"x`, 1) },
		"its hash":          func(l string) string { return l[:len(l)-10] + "0000000" + l[len(l)-3:] },
		"prev":              func(l string) string { i := strings.Index(l, `"prev":"`) + 8; return l[:i] + "0000000" + l[i+7:] },
		"its end":           func(l string) string { return l[:len(l)-2] + "\n" },
		"all of it":         func(string) string { return "nothing to see here\n" },
		"what makes a line": func(l string) string { return "x" + l },
	} {
		t.Run(name, func(t *testing.T) {
			lines := slices.Clone(s.lines)
			lines[4] = edit(lines[4])
			r := s.with(t, lines...)
			wantFault(t, r, audit.FaultEdited, 5, 5)
			if len(r.Problems) != 1 {
				t.Errorf("got %+v, want one problem", r.Problems)
			}
		})
	}
	lines := slices.Clone(s.lines)
	e, err := audit.ParseEntry([]byte(lines[4]))
	must(t, err)
	e.Decision = audit.Allow
	lines[4] = string(e.AppendLine(nil)) + "\n"
	r := s.with(t, lines...)
	wantFault(t, r, audit.FaultEdited, 5, 5) // its own hash is right, but not the next line's
	if len(r.Problems) != 1 {
		t.Errorf("got %+v, want one problem", r.Problems)
	}
	lines = slices.Insert(slices.Clone(s.lines), 4, "inserted\n")
	wantFault(t, s.with(t, lines...), audit.FaultEdited, 5, 5)
}

func TestS31MissingLines(t *testing.T) {
	s := seal(t, 35, true)
	for name, tt := range map[string]struct {
		from, to int
		seq      uint64
	}{"one": {4, 5, 5}, "some": {4, 8, 5}, "with a checkpoint": {8, 15, 9}} {
		t.Run(name, func(t *testing.T) {
			r := s.with(t, slices.Delete(slices.Clone(s.lines), tt.from, tt.to)...)
			wantFault(t, r, audit.FaultMissing, tt.from+1, tt.seq)
		})
	}
	r, err := audit.Verify(t.Context(), []audit.Source{text("a", s.lines[:12]...), text("b", s.lines[15:]...)}, audit.VerifyOptions{})
	must(t, err)
	wantFault(t, r, audit.FaultMissing, 1, 13)
	if !strings.Contains(r.Problems[0].Text, "end of a") {
		t.Errorf("got %q, want that it says where", r.Problems[0].Text)
	}
}

func TestS31ReorderedLines(t *testing.T) {
	s := seal(t, 35, true)
	swapped := slices.Clone(s.lines)
	swapped[4], swapped[5] = swapped[5], swapped[4]
	wantFault(t, s.with(t, swapped...), audit.FaultReordered, 5, 5)
	moved := slices.Concat(s.lines[:4], s.lines[8:20], s.lines[4:8], s.lines[20:])
	wantFault(t, s.with(t, moved...), audit.FaultReordered, 5, 5)
	r, err := audit.Verify(t.Context(), []audit.Source{text("b", s.lines[12:]...), text("a", s.lines[:12]...)}, audit.VerifyOptions{})
	must(t, err)
	wantFault(t, r, audit.FaultReordered, 1, 1)
}

func TestS31TruncatedTrail(t *testing.T) {
	s := seal(t, 35, true)
	for _, n := range []int{38, 37, 25, 1} {
		wantFault(t, s.with(t, s.lines[:n]...), audit.FaultTruncated, n, uint64(n+1))
	}
	open := seal(t, 35, false)
	if r := open.with(t, open.lines[:36]...); r.Last == 36 && r.OK() && r.Open == 0 {
		t.Errorf("got %+v, want that what no checkpoint speaks for is told of", r)
	}
	r := s.with(t)
	if r.OK() {
		t.Errorf("got %+v for an empty trail", r)
	}
}

func TestS31TruncateAndAppend(t *testing.T) {
	s := seal(t, 35, true)
	// The attacker cuts behind line 15 and writes a trail of his own, whose chain holds.
	forged := slices.Concat(s.lines[:15], s.lines[22:27], s.lines[24:29])
	r := s.with(t, rechain(t, forged, 15)...)
	wantFault(t, r, audit.FaultRewritten, 22, 22)
	r = s.with(t, rechain(t, forged[:18], 15)...) // and stops before the next checkpoint
	wantFault(t, r, audit.FaultTruncated, 18, 19)
	if r := verify(t, audit.VerifyOptions{Keys: []ed25519.PublicKey{s.key}}, rechain(t, forged[:18], 15)...); !r.OK() || r.Open != 7 {
		t.Errorf("got %+v, want that without the second place nothing is seen but seven records that nothing speaks for", r)
	}
}

func TestS31RewrittenChain(t *testing.T) {
	s := seal(t, 35, true)
	edited := slices.Clone(s.lines)
	edited[4] = strings.Replace(edited[4], `"deny"`, `"allow"`, 1)
	edited = rechain(t, edited, 4)
	wantFault(t, s.with(t, edited...), audit.FaultRewritten, 11, 11)
	alone := verify(t, audit.VerifyOptions{Keys: []ed25519.PublicKey{s.key}}, edited...)
	wantFault(t, alone, audit.FaultRewritten, 11, 11) // also without the second place
	if r := verify(t, audit.VerifyOptions{}, edited...); !r.OK() {
		t.Errorf("got %+v without a key, want that a bare chain does not show it", r.Problems)
	}
	var bare []string
	for _, l := range s.lines { // the checkpoints in the trail are taken out too
		if !strings.Contains(l, audit.ActionCheckpoint) {
			bare = append(bare, l)
		}
	}
	wantFault(t, s.with(t, rechain(t, bare, 4)...), audit.FaultRewritten, 11, 11)
}

func TestS31BadSignatures(t *testing.T) {
	s, other := seal(t, 35, true), seal(t, 35, true)
	r := verify(t, audit.VerifyOptions{Keys: []ed25519.PublicKey{other.key}}, s.lines...)
	wantFault(t, r, audit.FaultUnsigned, 11, 11)
	if len(r.Problems) != 4 {
		t.Errorf("got %d problems, want one for each checkpoint", len(r.Problems))
	}
	if r := verify(t, audit.VerifyOptions{Keys: []ed25519.PublicKey{other.key, s.key}}, s.lines...); !r.OK() {
		t.Errorf("got %+v with an old key and a new one", r.Problems)
	}
	wantFault(t, verify(t, audit.VerifyOptions{Keys: []ed25519.PublicKey{s.key}}, s.lines[:8]...), audit.FaultUnsigned, 0, 0) // no checkpoint at all
	forged := s
	forged.points = strings.Replace(s.points, `"store":7`, `"store":8`, 1)
	if r := forged.with(t, s.lines...); len(r.Problems) != 1 || r.Problems[0].Fault != audit.FaultUnsigned || r.Problems[0].File != "points" || r.Problems[0].Line != 1 {
		t.Errorf("got %+v, want the first line of the second place", r.Problems)
	}
	forged.points = "x\n" + s.lines[0] + s.points
	if r := forged.with(t, s.lines...); len(r.Problems) != 2 {
		t.Errorf("got %+v, want two lines that are no checkpoints", r.Problems)
	}
}

func TestS31CrashTails(t *testing.T) {
	s := seal(t, 35, false)
	n := len(s.lines)
	cut := slices.Concat(s.lines[:n-1], []string{s.lines[n-1][:60]})
	if r := s.with(t, cut[:n]...); !r.CrashTail {
		t.Errorf("got %+v, want a crash tail", r)
	}
	if r := verify(t, audit.VerifyOptions{}, cut...); !r.OK() || !r.CrashTail {
		t.Errorf("got %+v, want a crash tail and no problem", r)
	}
	whole := seal(t, 35, true)
	n = len(whole.lines)
	r := whole.with(t, slices.Concat(whole.lines[:n-1], []string{whole.lines[n-1][:60]})...)
	wantFault(t, r, audit.FaultTruncated, n-1, uint64(n)) // a checkpoint speaks of the line, so a crash is no excuse
}

func TestS31TwoTrails(t *testing.T) {
	a, b := seal(t, 12, true), seal(t, 12, true)
	wantFault(t, a.with(t, slices.Concat(a.lines, b.lines)...), audit.FaultMixed, len(a.lines)+1, 1)
	wantFault(t, a.with(t, slices.Concat(a.lines, a.lines[3:4])...), audit.FaultMixed, len(a.lines)+1, 4)
	r := verify(t, audit.VerifyOptions{Keys: []ed25519.PublicKey{a.key}, Checkpoints: []audit.Source{text("points", b.points, a.points)}}, a.lines...)
	if !r.OK() || r.Foreign != 2 || r.Witnessed != 2 {
		t.Errorf("got %+v, want that the checkpoints of another trail are passed over", r)
	}
}

func TestLinesOfVersion1AreCounted(t *testing.T) {
	old := `{"v":1,"seq":%d,"time":"2026-01-02T11:00:00Z","kind":"call"}` + "\n"
	path := folder(t, map[string]string{"audit.jsonl": fmt.Sprintf(old, 1) + fmt.Sprintf(old, 2)})
	f := openFile(t, path)
	l := run(t, f, audit.Options{Tail: f.Tail()})
	must(t, l.Write(t.Context(), audit.Record{RequestID: "new"}))
	r, err := audit.Verify(t.Context(), []audit.Source{audit.FileSource(path)}, audit.VerifyOptions{})
	must(t, err)
	if !r.OK() || r.Unchained != 2 || r.First != 1 || r.Last != 3 || r.Lines != 3 {
		t.Errorf("got %+v, want two unchained lines and one that begins the chain", r)
	}
	r = verify(t, audit.VerifyOptions{}, read(t, path), fmt.Sprintf(old, 4))
	wantFault(t, r, audit.FaultEdited, 4, 4)
}

func TestVerifyReadsManyFilesInOrder(t *testing.T) {
	s := seal(t, 35, true)
	path := folder(t, map[string]string{
		"audit.jsonl": strings.Join(s.lines[30:], ""), "audit.jsonl.1": strings.Join(s.lines[20:30], ""), "audit.jsonl.2": strings.Join(s.lines[:20], ""), "audit.jsonl.3": "",
	})
	sources := []audit.Source{}
	for _, name := range []string{"", ".3", ".1", ".2"} {
		sources = append(sources, audit.FileSource(path+name))
	}
	must(t, audit.Sort(t.Context(), sources))
	r, err := audit.Verify(t.Context(), sources, audit.VerifyOptions{Keys: []ed25519.PublicKey{s.key}, Checkpoints: []audit.Source{text("points", s.points)}})
	if err != nil || !r.OK() || r.Witnessed != 4 {
		t.Errorf("got %+v, %v", r, err)
	}
	missing := audit.FileSource(filepath.Join(t.TempDir(), "no"))
	if _, err := audit.Verify(t.Context(), []audit.Source{missing}, audit.VerifyOptions{}); err == nil {
		t.Error("a file that is not there is confirmed")
	}
	if _, err := audit.Verify(t.Context(), sources, audit.VerifyOptions{Checkpoints: []audit.Source{missing}}); err == nil {
		t.Error("a second place that is not there is passed over")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := audit.Verify(ctx, sources, audit.VerifyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

// FuzzVerify wants that whatever is done to one place of a trail is found, and that nothing breaks it.
func FuzzVerify(f *testing.F) {
	s := seal(f, 12, true)
	whole := strings.Join(s.lines, "")
	f.Add(100, "x", 1)
	f.Add(700, "\n", 0)
	f.Add(5, "", 900)
	f.Fuzz(func(t *testing.T, at int, put string, cut int) {
		if at < 0 || at > len(whole) || cut < 0 || cut > len(whole)-at {
			return
		}
		changed := whole[:at] + put + whole[at+cut:]
		r := s.with(t, changed)
		if (changed == whole) != r.OK() && !r.CrashTail {
			t.Errorf("at %d: %q in place of %d bytes: got %+v", at, put, cut, r)
		}
	})
}

func TestWhatIsNoTrailIsNotConfirmed(t *testing.T) {
	for name, lines := range map[string][]string{
		"nothing":             nil,
		"lines of other text": {"version: 1\n", "rules: []\n"},
		"one line":            {"hello\n"},
		"half a line":         {`{"v":2,"trail":"t"`},
	} {
		if r := verify(t, audit.VerifyOptions{}, lines...); r.OK() || r.Found() || r.Torn != 0 {
			t.Errorf("%s: got %+v, want a fault and no record", name, r)
		}
	}
}

func TestTheFirstLineAtTheEndIsNoCopy(t *testing.T) {
	s := seal(t, 5, false)
	r := verify(t, audit.VerifyOptions{}, append(slices.Clone(s.lines[1:]), s.lines[0])...)
	wantFault(t, r, audit.FaultReordered, 5, 1)
}

func TestARecordThatNothingSpeaksForIsOne(t *testing.T) {
	s := seal(t, 5, false)
	if r := verify(t, audit.VerifyOptions{Keys: []ed25519.PublicKey{s.key}}, s.lines[4]); r.Open != 1 || r.SignedTo != 0 {
		t.Errorf("got %d open behind %d, want the one record that is there", r.Open, r.SignedTo)
	}
}
