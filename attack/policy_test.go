package attack_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// everybody is a policy that nobody may ever come to have by mistake.
const everybody = "version: 1\nrules:\n  - {name: all, identities: [\"" + domain + "**\"], actions: [\"token.*\"], credentials: [\"**\"], scopes: [\"**\"]}\n"

// reloaded waits until the broker says whether the policy file is what is in force.
func (w *world) reloaded(good int) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("tokenbroker_policy_last_reload_successful %d", good), func() bool {
		return strings.Contains(w.metrics(), fmt.Sprintf("\ntokenbroker_policy_last_reload_successful %d\n", good))
	})
}

func (w *world) metrics() string {
	w.t.Helper()
	_, text := w.ask("/metrics")
	return text
}

// TestS33ABadPolicyChangesNothing puts files that are no policy in the place of the one in force, while it is used. Nobody gains, nobody
// loses, and the operator can see it.
func TestS33ABadPolicyChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	v := w.victim()
	outsider := w.conn(w.as("outsider/mallory"))
	w.add("example/spare") // to be changed while the victim asks for the others
	held := open(t, w.conn(w.as("worker/held")), "example/spare")
	for name, harm := range map[string]func(){
		"garbage":         func() { w.write("policy.yaml", "\x00\xff\x01{{[") },
		"an empty file":   func() { w.write("policy.yaml", "") },
		"no file":         func() { must(t, os.Remove(w.path("policy.yaml"))) },
		"a folder":        func() { must(t, os.Remove(w.path("policy.yaml"))); must(t, os.Mkdir(w.path("policy.yaml"), 0o700)) },
		"only a comment":  func() { w.write("policy.yaml", "# nothing\n") },
		"no rules":        func() { w.write("policy.yaml", "version: 1\nrules: []\n") },
		"a version of 99": func() { w.write("policy.yaml", strings.Replace(everybody, "version: 1", "version: 99", 1)) },
		"an unknown key": func() {
			w.write("policy.yaml", strings.Replace(everybody, "name: all", "name: all, allow_all: true", 1))
		},
		"an unknown action": func() { w.write("policy.yaml", strings.Replace(everybody, "token.*", "*", 1)) },
		"a rule twice":      func() { w.write("policy.yaml", everybody+strings.Split(everybody, "rules:\n")[1]) },
		"a key twice":       func() { w.write("policy.yaml", strings.Replace(everybody, "name: all", "name: all, name: more", 1)) },
		"two documents":     func() { w.write("policy.yaml", policyText+"---\n"+everybody) },
		"an alias bomb": func() {
			w.write("policy.yaml", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"+everybody)
		},
		"half of a write":   func() { w.write("policy.yaml", policyText[:len(policyText)/2]) },
		"a file of 64 MiB":  func() { w.write("policy.yaml", everybody+strings.Repeat("# padding padding\n", 64<<20/18)) },
		"an open identity":  func() { w.write("policy.yaml", strings.Replace(everybody, domain+"**", "**", 1)) },
		"brackets for ever": func() { w.write("policy.yaml", strings.Repeat("[", 8<<20)) },
		"dashes for ever":   func() { w.write("policy.yaml", strings.Repeat("- ", 4<<20)) },
	} {
		harm()
		w.reloaded(0)
		if _, err := get(brief(t), outsider, "example/one"); status.Code(err) != codes.NotFound && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: an outsider got %v, want a denial", name, err)
		}
		if _, err := get(brief(t), v.conn, "example/one"); err != nil {
			t.Errorf("%s: the worker of before got %v", name, err)
		}
		if info, err := os.Stat(w.path("policy.yaml")); err == nil && info.IsDir() {
			must(t, os.Remove(w.path("policy.yaml")))
		}
		w.write("policy.yaml", policyText)
		w.reloaded(1)
	}
	wantNewest(t, w, held, "example/spare")
	w.write("policy.yaml", everybody) // the way to a change is open all the same
	eventually(t, "the outsider is let in", func() bool { _, err := get(brief(t), outsider, "example/one"); return err == nil })
	w.write("policy.yaml", policyText)
	eventually(t, "the outsider is kept out", func() bool { _, err := get(brief(t), outsider, "example/one"); return err != nil })
	v.well(t)
}

// TestP12APolicyChangeCutsOpenStreams takes one of three credentials from many workers at once, under load: each stream loses that one,
// with a word about it, and keeps the others.
func TestP12APolicyChangeCutsOpenStreams(t *testing.T) {
	t.Parallel()
	workers := count(60, 1_000)
	w := newWorld(t, plan{limits: "streams_per_identity: 100000"})
	w.add("example/two")
	w.add("example/three")
	v := w.victim()
	var streams []stream
	config := w.as("worker/some")
	for range (workers + 19) / 20 {
		conn := w.conn(config)
		for range 20 {
			streams = append(streams, open(t, conn, "example/one", "example/two", "example/three"))
		}
	}
	for round := range count(3, 10) {
		w.write("policy.yaml", strings.Replace(policyText, `credentials: ["example/*"]`, `credentials: ["example/one", "example/three", "example/pulse"]`, 1))
		began := time.Now()
		for i, s := range streams {
			m := next(t, s)
			if r := m.GetRemoved(); r.GetSelector().GetCredential() != "example/two" {
				t.Fatalf("stream %d: got %T of %s, want example/two removed", i, m.GetEvent(), m.GetUpdate().GetSelector().GetCredential())
			}
		}
		t.Logf("round %d: %d streams lost it within %v of the change of the file", round, len(streams), time.Since(began).Round(time.Millisecond))
		if _, err := get(brief(t), v.conn, "example/two"); status.Code(err) != codes.NotFound {
			t.Errorf("got %v for what was taken away, want NOT_FOUND", err)
		}
		w.toggle("example/two") // nobody hears of it any more
		w.toggle("example/three")
		for _, s := range streams {
			wantReady(t, s, "example/three")
		}
		w.write("policy.yaml", policyText)
		for _, s := range streams {
			wantReady(t, s, "example/two")
		}
	}
	v.well(t)
}

// next is the next message of a stream but for heartbeats.
func next(t testing.TB, s stream) *tokenbrokerv1.SubscribeResponse {
	t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatalf("a stream ended: %v", err)
		}
		if m.GetHeartbeat() == nil {
			return m
		}
	}
}

// wantReady reads updates of one credential, and of no other, until it is ready.
func wantReady(t testing.TB, s stream, name string) {
	t.Helper()
	for {
		u := next(t, s).GetUpdate()
		if got := u.GetSelector().GetCredential(); got != name {
			t.Fatalf("got a message of %q, want one of %s", got, name)
		}
		if u.GetState() == tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY {
			return
		}
	}
}
