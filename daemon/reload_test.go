package daemon_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

// journal is a log that a broker writes and a test reads.
type journal struct {
	mu sync.Mutex
	b  strings.Builder
}

func (h *journal) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.Write(p)
}

func (h *journal) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.String()
}

// reloads are the records of policies that came in force.
func reloads(t *testing.T, b *brokertest.Broker) (found []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Dir, "audit.jsonl"))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		var r map[string]any
		must(t, json.Unmarshal([]byte(line), &r))
		if r["action"] == "policy.reload" {
			found = append(found, r)
		}
	}
	return found
}

func TestAReloadSaysWhatChangedAndABadFileChangesNothing(t *testing.T) {
	log := &journal{}
	b := brokertest.Start(t, brokertest.Config{Log: log})
	b.SetPolicy(strings.Replace(brokertest.DefaultPolicy, `credentials: ["example/*"]`, `credentials: ["example/*", "more/*"]`, 1) + "  - name: half a rule\n")
	b.Daemon.Reload(t.Context())
	if got := reloads(t, b); len(got) != 0 || !strings.Contains(log.String(), "policy refused") {
		t.Errorf("a file with one bad rule came in force: %v\n%s", got, log)
	}
	b.SetPolicy(strings.Replace(brokertest.DefaultPolicy, `credentials: ["example/*"]`, `credentials: ["more/*"]`, 1))
	b.Daemon.Reload(t.Context())
	got := reloads(t, b)
	if len(got) != 1 {
		t.Fatalf("got %d records of reloads, want 1", len(got))
	}
	old, _ := strings.CutPrefix(got[0]["reason"].(string), "was ")
	if now := got[0]["policy"]; len(old) != 16 || now == old {
		t.Errorf("got %v after %v, want both revisions", now, old)
	}
	for _, want := range []string{"rule workers: credentials +more/*, -example/*", "was=" + old} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q\n%s", want, log)
		}
	}
}

func TestWhatOnlyAuditModeLetsPassRaisesAMetric(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Ops: true, Policy: strings.Replace(brokertest.DefaultPolicy, `actions: ["token.*"]
    credentials: ["example/*"]
    scopes: ["**"]`, `actions: [token.get, token.subscribe]
    credentials: ["example/*"]
    mode: audit
    until: 9998-01-01`, 1)})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	_, err := tokenbrokerv1.NewTokenServiceClient(b.Operator()).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	must(t, err)
	if n := now(t, b, "tokenbroker_policy_audit_mode_total", `action="token.get",rule="workers"`); n != 1 {
		t.Errorf("got %v, want 1: the operator is let pass by a rule that is enforced", n)
	}
}

func TestUsageThatDoesNotOpenIsToldAndCountedAnew(t *testing.T) {
	log := &journal{}
	b := brokertest.Start(t, brokertest.Config{Log: log})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	b.Shutdown()
	spoil(t, filepath.Join(b.Dir, "tokenbroker.db"), store.Key{Bucket: "usage", Name: "example/api"})
	b.Restart()
	if !strings.Contains(log.String(), "counted anew") {
		t.Errorf("the log does not tell\n%s", log)
	}
	users := func() int {
		r, err := tokenbrokerv1.NewCredentialServiceClient(b.Operator()).ListCredentialUsers(t.Context(), &tokenbrokerv1.ListCredentialUsersRequest{Credential: "example/api"})
		must(t, err)
		return len(r.GetDid())
	}
	if n := users(); n != 0 {
		t.Errorf("got %d users of a damaged record", n)
	}
	b.Token("example/api")
	b.Restart()
	if n := users(); n != 1 {
		t.Errorf("got %d users after it was used again, want 1", n)
	}
}

// spoil damages a record of a store that nobody has open.
func spoil(t *testing.T, path string, key store.Key) {
	t.Helper()
	engine, err := bolt.Open(path, bolt.Options{})
	must(t, err)
	was, err := engine.Read(t.Context(), key)
	must(t, err)
	value := slices.Clone(was.Entries[0].Value)
	value[len(value)-1] ^= 1
	_, err = engine.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: key, Value: value}}})
	must(t, errors.Join(err, engine.Close()))
}
