package agent_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/agent"
	"github.com/tokenbroker/tokenbroker/audit"
)

// verify verifies the agent's trail with the checkpoints of the second place.
func (w *world) verify(keys []ed25519.PublicKey, points string) audit.Report {
	w.t.Helper()
	r, err := audit.Verify(w.t.Context(), []audit.Source{audit.FileSource(w.trail)},
		audit.VerifyOptions{From: 1, Keys: keys, Checkpoints: []audit.Source{audit.FileSource(points)}})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func TestATrailThatIsCutOffIsNoticedByItsCheckpoints(t *testing.T) {
	w := start(t)
	w.stop()
	key, points := filepath.Join(w.dir, "audit.key"), filepath.Join(w.dir, "elsewhere", "points.jsonl")
	var log lines
	signed := func(c *agent.Config) {
		c.Checkpoints, c.Log = agent.Checkpoints{KeyFile: key, File: points}, slog.New(slog.NewJSONHandler(&log, nil))
	}
	if err := os.Mkdir(filepath.Dir(points), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // over a restart, too
		w.run(signed)
		w.do("GET", "/v1/token/example/api", "")
		w.stop()
	}
	data, err := os.ReadFile(filepath.Join(w.dir, "audit.pub"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := audit.ParsePublicKeys(data)
	if err != nil {
		t.Fatal(err)
	}
	if r := w.verify(keys, points); !r.OK() || r.Witnessed != 2 || r.Open != 0 || r.SignedTo == 0 {
		t.Errorf("got %d checkpoints of the second place, %d records that none speaks for, %+v, want 2 and 0", r.Witnessed, r.Open, r.Problems)
	}
	whole, err := os.ReadFile(w.trail)
	if err != nil {
		t.Fatal(err)
	}
	rest := slices.Collect(bytes.Lines(whole))
	if err := os.WriteFile(w.trail, bytes.Join(rest[:len(rest)-3], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.verify(keys, points); r.OK() || !slices.ContainsFunc(r.Problems, func(p audit.Problem) bool { return p.Fault == audit.FaultTruncated }) {
		t.Errorf("got %+v of a trail without its end, want that it was cut off", r.Problems)
	}
}

func TestASecondPlaceThatIsAwayHoldsUpNoToken(t *testing.T) {
	w := start(t)
	w.stop()
	var log lines
	w.run(func(c *agent.Config) {
		c.Checkpoints = agent.Checkpoints{KeyFile: filepath.Join(w.dir, "audit.key"), File: filepath.Join(w.dir, "not", "mounted.jsonl")}
		c.Log = slog.New(slog.NewJSONHandler(&log, nil))
	})
	if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 200 {
		t.Errorf("got %d, want a token", r.code())
	}
	w.stop() // which signs, and tries to bring it away
	if got := log.text(); !strings.Contains(got, "do not get to their second place") || !strings.Contains(got, "mounted.jsonl") {
		t.Errorf("got log\n%s\nwant to be told", got)
	}
	for want, c := range map[string]agent.Checkpoints{
		"of no use without audit.checkpoint_key_file": {File: filepath.Join(w.dir, "points.jsonl")},
		"another file than the trail":                 {KeyFile: filepath.Join(w.dir, "audit.key"), File: filepath.Join(w.dir, "other.jsonl")},
		"audit.checkpoint_key_file: ":                 {KeyFile: w.dir},
	} {
		if got := w.refused(func(cfg *agent.Config) { cfg.Checkpoints = c }); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestATrailThatIsDeletedIsWorthALine(t *testing.T) {
	var log lines
	w := start(t, func(c *agent.Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
	w.do("GET", "/v1/token/example/api", "")
	if err := os.Remove(w.trail); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); !strings.Contains(log.text(), "the audit trail was deleted"); {
		if r := w.do("GET", "/v1/token/example/api", ""); r.code() != 200 || time.Now().After(end) {
			t.Fatalf("got %d and log\n%s\nwant a new file, and a line on it", r.code(), log.text())
		}
	}
}

func TestATrailThatCanNotBeWrittenIsWorthALineAndAnotherWhenItCan(t *testing.T) {
	var log lines
	w := start(t, func(c *agent.Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
	await := func(text string) {
		t.Helper()
		for end := time.Now().Add(patience); !strings.Contains(log.text(), text); w.do("GET", "/healthz", "") {
			if time.Now().After(end) {
				t.Fatalf("the log does not say %q:\n%s", text, log.text())
			}
		}
	}
	w.do("GET", "/v1/token/example/api", "")                                          // the agent runs
	if err := errors.Join(os.Remove(w.trail), os.Mkdir(w.trail, 0o700)); err != nil { // where the trail was is a folder now
		t.Fatal(err)
	}
	for range 3 {
		r := w.do("GET", "/v1/token/example/api", "")
		if message, _ := r.field("error", "message").(string); r.code() != 503 || !strings.HasPrefix(message, "the agent's audit log can't be written") {
			t.Errorf("a token without a record: got %d %q, want 503 and whose log it is", r.code(), message)
		}
	}
	await("the audit trail can't be written")
	if r := w.do("GET", "/healthz", ""); r.code() != 503 || !strings.Contains(r.text, "the agent's audit log") {
		t.Errorf("healthz: got %d %s, want 503 and whose log it is", r.code(), r.text)
	}
	if err := os.Remove(w.trail); err != nil {
		t.Fatal(err)
	}
	await("can be written again")
	w.stop()
	for line, want := range map[string]string{"the audit trail can't be written": `"level":"ERROR"`, "can be written again": `"level":"INFO"`} {
		if got := log.text(); strings.Count(got, line) != 1 || !strings.Contains(got, want) || !strings.Contains(got, w.trail) {
			t.Errorf("got log\n%s\nwant one line %q, %s", got, line, want)
		}
	}
}
