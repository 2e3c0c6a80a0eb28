package subject_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/bench/subject"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// TestMain makes the test's binary a server where a test starts one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == subject.Flag {
		if err := subject.Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newSite(t *testing.T) subject.Site {
	t.Helper()
	site, err := subject.NewSite(t.TempDir())
	fatal(t, err)
	return site
}

// start starts a server that ends with the test.
func start(t *testing.T, c subject.Config) *subject.Process {
	t.Helper()
	p, err := subject.Start(t.Context(), c)
	fatal(t, err)
	t.Cleanup(func() { _ = p.Stop() })
	return p
}

func connect(t *testing.T, site subject.Site, p *subject.Process) tokenbrokerv1.TokenServiceClient {
	t.Helper()
	config, err := site.ClientTLS()
	fatal(t, err)
	conn, err := grpc.NewClient(p.Addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	fatal(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return tokenbrokerv1.NewTokenServiceClient(conn)
}

func get(t *testing.T, c tokenbrokerv1.TokenServiceClient, credential int) *tokenbrokerv1.GetTokenResponse {
	t.Helper()
	r, err := c.GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: subject.CredentialName(credential)})
	fatal(t, err)
	return r
}

// receive receives the next message that holds a token.
func receive(t *testing.T, s grpc.ServerStreamingClient[tokenbrokerv1.SubscribeResponse]) *tokenbrokerv1.SubscribeResponse {
	t.Helper()
	for {
		m, err := s.Recv()
		fatal(t, err)
		if m.GetUpdate().GetToken() != nil {
			return m
		}
	}
}

func subscribe(t *testing.T, c tokenbrokerv1.TokenServiceClient) grpc.ServerStreamingClient[tokenbrokerv1.SubscribeResponse] {
	t.Helper()
	s, err := c.Subscribe(t.Context(), &tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{{Credential: subject.CredentialName(0)}}})
	fatal(t, err)
	return s
}

func TestTheProductServesAndPublishesTokensOfTheRightLength(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	p := start(t, subject.Config{Role: subject.Product, Site: site, Store: t.TempDir(), Seed: subject.Seed{Credentials: 2}})
	c := connect(t, site, p)
	if got := len(get(t, c, 1).GetToken().GetAccessToken()); got != subject.TokenBytes {
		t.Errorf("got a token of %d bytes, want %d", got, subject.TokenBytes)
	}
	s := subscribe(t, c)
	before := receive(t, s).GetUpdate().GetGeneration()
	from := time.Now().UnixNano()
	said, err := p.Ask(subject.Order{Do: subject.DoPublish})
	fatal(t, err)
	after := receive(t, s).GetUpdate().GetGeneration()
	if after <= before {
		t.Errorf("generation %d was published after %d", after, before)
	}
	if now := time.Now().UnixNano(); said.Answered < from || said.Published < said.Answered || said.Published > now {
		t.Errorf("answered at %d and published at %d, between %d and %d", said.Answered, said.Published, from, now)
	}
	stats, err := p.Ask(subject.Order{Do: subject.DoStats, GC: true})
	fatal(t, err)
	if stats.CPU <= 0 || stats.RSS <= 0 || stats.Heap == 0 || stats.Exchanges.Requests != 3 || stats.Exchanges.Refused != 0 {
		t.Errorf("got %+v, want three exchanges", stats)
	}
	if _, err := p.Ask(subject.Order{Do: subject.DoReplies}); err == nil {
		t.Error("the product took replies from outside")
	}
	fatal(t, p.Stop())
}

func TestAReferenceAnswersWhatItIsTold(t *testing.T) {
	t.Parallel()
	for _, role := range []subject.Role{subject.Reference, subject.Tuned} {
		site := newSite(t)
		p := start(t, subject.Config{Role: role, Site: site})
		token := &tokenbrokerv1.Token{AccessToken: "told", Generation: 7}
		reply, err := proto.Marshal(&tokenbrokerv1.GetTokenResponse{Token: token})
		fatal(t, err)
		update, err := proto.Marshal(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{
			Update: &tokenbrokerv1.Update{Generation: 7, Token: token}}})
		fatal(t, err)
		_, err = p.Ask(subject.Order{Do: subject.DoReplies, Get: reply, Update: update})
		fatal(t, err)
		c := connect(t, site, p)
		if got := get(t, c, 0).GetToken().GetAccessToken(); got != "told" {
			t.Errorf("%s: got %q", role, got)
		}
		s := subscribe(t, c)
		receive(t, s)
		end, err := s.Recv()
		fatal(t, err)
		if end.GetSnapshotEnd() == nil {
			t.Errorf("%s: no end of the snapshot came", role)
		}
		_, err = p.Ask(subject.Order{Do: subject.DoPublish})
		fatal(t, err)
		if got := receive(t, s).GetUpdate(); got.GetGeneration() != 8 || got.GetToken().GetGeneration() != 8 {
			t.Errorf("%s: generation %d was published after 7", role, got.GetGeneration())
		}
		fatal(t, p.Stop())
	}
}

func TestAProcessSaysWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	p := start(t, subject.Config{Role: subject.Reference, Site: site})
	if _, err := p.Ask(subject.Order{Do: "sing"}); err == nil || !strings.Contains(err.Error(), "unknown order") {
		t.Errorf("an unknown order: got %v", err)
	}
	if _, err := p.Ask(subject.Order{Do: subject.DoReplies, Get: []byte{0xff}}); err == nil {
		t.Error("a reply that is no message was taken")
	}
	if _, err := p.CPU(); err != nil {
		t.Errorf("after a mistake it does not go on: %v", err)
	}
}

func TestStartSaysWhatWentWrong(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]subject.Config{
		"unknown role": {Role: "spectator"},
		"no such file": {Role: subject.Reference, Site: subject.Site{Dir: t.TempDir()}},
	} {
		p, err := subject.Start(t.Context(), c)
		if err == nil {
			_ = p.Stop()
			t.Errorf("%s: it started", want)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestAServerEndsWithItsInput(t *testing.T) {
	t.Parallel()
	c, err := json.Marshal(subject.Config{Role: subject.Reference, Site: newSite(t)})
	fatal(t, err)
	var out strings.Builder
	fatal(t, subject.Serve(t.Context(), strings.NewReader(string(c)), &out))
	var first subject.Report
	fatal(t, json.Unmarshal([]byte(out.String()), &first))
	if first.Addr == "" || first.Error != "" {
		t.Errorf("got %+v, want an address", first)
	}
}

func TestASecondEndIsNone(t *testing.T) {
	t.Parallel()
	p := start(t, subject.Config{Role: subject.Reference, Site: newSite(t)})
	p.Kill()
	if err := p.Stop(); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := p.CPU(); err == nil {
		t.Error("a server that is gone answered")
	}
}

func TestAProfileIsWrittenAtTheEnd(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	p := start(t, subject.Config{Role: subject.Reference, Site: newSite(t), Profile: file})
	fatal(t, p.Stop())
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("got %v, %v", info, err)
	}
}

func TestFillWritesWhatTheStoreThenHolds(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	for name, tc := range map[string]struct {
		seed   subject.Seed
		tokens bool
	}{
		"with tokens":              {subject.Seed{Credentials: 20, Token: true}, true},
		"without":                  {subject.Seed{Credentials: 20}, false},
		"with both kinds of token": {subject.Seed{Credentials: 20, Rotating: true, Token: true, Age: 55 * time.Minute}, true},
	} {
		dir := t.TempDir()
		given := make(chan struct{}, 100)
		fatal(t, subject.Fill(t.Context(), site, dir, tc.seed, func() string { given <- struct{}{}; return "refresh-token" }))
		if tc.seed.Rotating != (len(given) == 20) {
			t.Errorf("%s: %d refresh tokens were taken", name, len(given))
		}
		list, err := subject.Generations(t.Context(), site, dir, 20)
		fatal(t, err)
		seen := map[uint64]bool{}
		for i, g := range list {
			if (g != 0) != tc.tokens || g != 0 && seen[g] {
				t.Errorf("%s: %s has generation %d", name, subject.CredentialName(i), g)
			}
			seen[g] = true
		}
		if _, err := subject.Generations(t.Context(), site, dir, 21); err == nil {
			t.Errorf("%s: a credential that was not made is there", name)
		}
	}
}

func TestNamesAndNumbersOfCredentialsBelongTogether(t *testing.T) {
	t.Parallel()
	for _, i := range []int{0, 7, 99_999, 1_234_567} {
		if got, err := subject.CredentialIndex(subject.CredentialName(i)); err != nil || got != i {
			t.Errorf("got %d, %v, want %d", got, err, i)
		}
	}
	for _, name := range []string{"", "example/c1", "bench/c", "bench/cx"} {
		if _, err := subject.CredentialIndex(name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

func TestResidentSetIsTheSecondNumberInPages(t *testing.T) {
	t.Parallel()
	if got, err := subject.ResidentOf("330437 5201 3020 1423 0 11542 0\n", 4096); err != nil || got != 5201*4096 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, text := range []string{"", "330437", "330437 many 1"} {
		if _, err := subject.ResidentOf(text, 4096); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestOnlyTheAccessTokenIsLengthened(t *testing.T) {
	t.Parallel()
	body, err := subject.Lengthen([]byte(`{"access_token":"sandbox_at_1","expires_in":3600,"refresh_token":"r"}`))
	fatal(t, err)
	var got struct {
		AccessToken  string `json:"access_token"`
		ExpiresIn    int    `json:"expires_in"`
		RefreshToken string `json:"refresh_token"`
	}
	fatal(t, json.Unmarshal(body, &got))
	if len(got.AccessToken) != subject.TokenBytes || !strings.HasPrefix(got.AccessToken, "sandbox_at_1x") || got.ExpiresIn != 3600 || got.RefreshToken != "r" {
		t.Errorf("got a token of %d bytes, %d, %q", len(got.AccessToken), got.ExpiresIn, got.RefreshToken)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"access_token":1}`, `{"access_token":"` + strings.Repeat("x", subject.TokenBytes+1) + `"}`} {
		if _, err := subject.Lengthen([]byte(bad)); err == nil {
			t.Errorf("%.40q was taken", bad)
		}
	}
}
