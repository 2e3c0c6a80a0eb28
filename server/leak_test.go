package server_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/keyring"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

// nextQuarter makes a new key to name tokens in a broker's store, as the broker does in each quarter. The broker must not run.
func nextQuarter(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	engine, err := bolt.Open(filepath.Join(b.Dir, "tokenbroker.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	kek, err := keyring.FileKEK(filepath.Join(b.Dir, "kek.key"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), engine, store.Options{KEK: kek})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.AuditKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := audit.NewKeys(list)
	if err == nil {
		err = keys.Rotate(time.Now(), func(list [][]byte) error { return s.PutAuditKeys(t.Context(), list) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhoGotALeakedTokenIsFoundAfterARestartAndAfterRotations(t *testing.T) {
	floor := provider.Duration(time.Millisecond)
	b := brokertest.Start(t, brokertest.Config{Policy: auditPolicy, Profile: func(_ string, p *provider.Profile) { p.Floor = &floor }})
	b.AddClientCredentials("example/api", "files.read")
	getter, streamer, never := worker("getter"), worker("streamer"), worker("never")
	get := func(identity string) *tokenbrokerv1.Token {
		t.Helper()
		r, err := tokensOf(b.Conn(identity)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetToken()
	}
	leaked := get(getter)
	w := watch(t, b.Conn(streamer), sel("example/api"))
	w.ready(0)
	check := func(when string, reader string) *tokenbrokerv1.FindTokenResponse {
		t.Helper()
		r, err := tokenbrokerv1.NewAuditServiceClient(b.Conn(reader)).FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{AccessToken: leaked.GetAccessToken()})
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		return r
	}
	want := func(when string) {
		t.Helper()
		r := check(when, auditor)
		var who []string
		for _, h := range r.GetHolders() {
			who = append(who, h.GetIdentity()+" by "+h.GetWay())
			if h.GetCertificate() == "" || h.GetRule() != "workers" || h.GetCount() == 0 {
				t.Errorf("%s: got %v without certificate, rule or count", when, h.GetIdentity())
			}
		}
		if !r.GetKnown() || r.GetCredential() != "example/api" || r.GetGeneration() != leaked.GetGeneration() ||
			!slices.Equal(who, []string{getter + " by get", streamer + " by stream"}) || r.GetTruncated() {
			t.Errorf("%s: got %v %v, want the first two workers alone", when, r.GetCredential(), who)
		}
	}
	want("at once")
	if _, err := credentialsOf(b.Operator()).RefreshCredential(brief(t), &tokenbrokerv1.RefreshCredentialRequest{Credential: "example/api"}); err != nil {
		t.Fatal(err)
	}
	newer := get(never)
	if newer.GetAccessToken() == leaked.GetAccessToken() {
		t.Fatal("the token is the same")
	}
	want("after another worker got the next token")
	b.Restart()
	want("after a restart")
	path := filepath.Join(b.Dir, "audit.jsonl")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	b.Daemon.Reload(context.Background())
	get(never)
	want("after a rotation of the log")
	b.Shutdown()
	nextQuarter(t, b)
	b.Restart()
	get(never)
	want("after a rotation of the key")
	if r := check("of a team that has nothing to do with it", team); r.GetKnown() || len(r.GetHolders()) != 0 {
		t.Errorf("got %v, want nothing", r.GetHolders())
	}
	b.Stop()
	for _, name := range []string{path, path + ".1"} {
		text, err := os.ReadFile(name)
		if err != nil || strings.Contains(string(text), leaked.GetAccessToken()) || strings.Contains(string(text), newer.GetAccessToken()) {
			t.Errorf("%s holds a token (%v)", name, err)
		}
	}
}
