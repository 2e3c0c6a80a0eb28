package server_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// trialPolicy lets a tenant try out two credentials, each until a time, and has the third for good. A bubble's clock begins with 2000.
const trialPolicy = `version: 1
rules:
  - name: operators
    identities: ["spiffe://brokertest.local/operator/*"]
    actions: ["credential.*", "oauth_client.*"]
    credentials: ["**"]
    oauth_clients: ["**"]
    scopes: ["**"]
  - name: settled
    identities: ["spiffe://brokertest.local/worker/*"]
    actions: ["token.*"]
    credentials: ["example/kept"]
  - name: trial
    identities: ["spiffe://brokertest.local/worker/*"]
    actions: [token.get, token.subscribe]
    credentials: ["example/trial"]
    mode: audit
    until: 2000-01-01T00:10:00Z
  - name: longer-trial
    identities: ["spiffe://brokertest.local/worker/*"]
    actions: [token.get, token.subscribe]
    credentials: ["example/longer"]
    mode: audit
    until: 2000-01-01T00:20:00Z
`

// counted are what rules in audit mode let pass.
type counted struct {
	mu   sync.Mutex
	list []string
}

func (c *counted) count(rule string, action policy.Action) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, rule+" "+string(action))
}

func (c *counted) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.list))
}

func TestWhatARuleInAuditModeLetsPassEndsWithItAlsoOnOpenStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{Policy: trialPolicy, CertLife: 24 * time.Hour})
		defer b.Stop()
		for _, name := range []string{"example/trial", "example/longer", "example/kept"} {
			b.AddClientCredentials(name, "files.read")
		}
		w := watch(t, b.Worker(), sel("example/longer"), sel("example/trial"), sel("example/kept"))
		w.patience = time.Hour
		for range 3 {
			w.ready(0)
		}
		for _, row := range []struct{ credential, end string }{{"example/trial", "2000-01-01T00:10:00Z"}, {"example/longer", "2000-01-01T00:20:00Z"}} {
			end, err := time.Parse(time.RFC3339, row.end)
			if err != nil {
				t.Fatal(err)
			}
			b.Token(row.credential)
			r := w.until(isRemoved).GetRemoved()
			if late := time.Since(end); r.GetSelector().GetCredential() != row.credential || r.GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_FOUND || late < 0 || late > time.Second {
				t.Errorf("got %v %v after the end of the rule, want %s removed within a second", r, late, row.credential)
			}
			_, err = tokensOf(b.Worker()).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: row.credential})
			wantFault(t, err, codes.NotFound, "CREDENTIAL_NOT_FOUND")
		}
		disable(t, b, "example/kept")
		if u := w.update(); u.GetSelector().GetCredential() != "example/kept" {
			t.Errorf("got %v, want the third to stay", u)
		}
		w.cancel()
	})
}

func TestWhatARuleInAuditModeLetsPassIsCountedAndMarked(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: brokertest.DefaultPolicy + `  - name: trial
    identities: ["spiffe://brokertest.local/trial/*"]
    actions: [token.get, token.subscribe]
    credentials: ["example/*"]
    mode: audit
    until: 9998-01-01
`})
	b.AddClientCredentials("example/a", "files.read")
	var c counted
	written := new(records)
	r := newRig(t, b, func(cfg *server.Config) { cfg.Audited, cfg.Audit = c.count, written.write })
	conn := r.serve(domain + "/trial/1")
	if _, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/a"}); err != nil {
		t.Fatal(err)
	}
	_, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/a", Scopes: []string{"files.write"}})
	wantFault(t, err, codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
	watch(t, conn, sel("example/a")).ready(0)
	if got := c.all(); !slices.Equal(got, []string{"trial token.get", "trial token.subscribe"}) {
		t.Errorf("counted %q, want the call and the selector", got)
	}
	marked := 0
	for _, rec := range written.all() {
		if rec.Mode == "audit" && rec.Rule == "trial" {
			marked++
		}
	}
	if marked != 2 {
		t.Errorf("%d records say that the rule is in audit mode, want 2", marked)
	}
}
