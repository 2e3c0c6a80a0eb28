package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/audit"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

const (
	leakedToken = "leaked.token"
	leakedMAC   = "k1:nekot.dekael"
)

// handedOut is the story of one token, and of others around it. The broker was started anew in between, so that stream ids repeat.
func handedOut() []audit.Record {
	get := func(who, mac string) audit.Record {
		return audit.Record{Kind: audit.KindCall, Action: "token.get", Identity: who, CertFingerprint: "c-" + who, Peer: "192.0.2.1:1", Credential: "team/a",
			Decision: audit.Allow, Code: "OK", TokenMAC: mac, Generation: 3, Rule: "r"}
	}
	open := func(id uint64, who, credential string) audit.Record {
		return audit.Record{Kind: audit.KindStreamOpen, Action: "token.subscribe", Identity: who, Peer: "192.0.2.2:9", Credential: credential,
			Streams: []uint64{id}, Decision: audit.Allow, Rule: "s-" + credential}
	}
	deliver := func(mac string, ids ...uint64) audit.Record {
		return audit.Record{Kind: audit.KindDeliver, Credential: "team/a", TokenMAC: mac, Generation: 3, Streams: ids}
	}
	return []audit.Record{
		get("before", leakedMAC), // of another token with the same hash: nobody looks so far back
		open(1, "streamer", "team/b"),
		open(1, "streamer", "team/a"),
		{Kind: audit.KindExchangeIntent, RequestID: "attempt1", Credential: "team/a"},
		deliver(leakedMAC, 1), // before the result is recorded
		{Kind: audit.KindExchangeResult, RequestID: "attempt1", Credential: "team/a", TokenMAC: leakedMAC, Reason: "ok", Generation: 3},
		get("getter", leakedMAC),
		get("other", "k1:another"),
		{Kind: audit.KindSystem, Action: "start"},
		open(1, "late", "team/a"),
		open(2, "never", "team/a"),
		deliver("k2:nekot.dekael", 1), // under the next key
		{Kind: audit.KindExchangeIntent, RequestID: "attempt2", Credential: "team/a"},
		{Kind: audit.KindExchangeResult, RequestID: "attempt2", Credential: "team/a", TokenMAC: "k2:nekot.dekael", Reason: server.ReasonUnchanged, Generation: 3},
		{Kind: audit.KindCall, Action: "token.report", Identity: "getter", Credential: "team/a", Decision: audit.Allow, TokenMAC: "k2:nekot.dekael", Generation: 3},
		get("getter", leakedMAC),
		deliver("k1:another", 2),
	}
}

func holdersOf(r *tokenbrokerv1.FindTokenResponse) []string {
	var got []string
	for _, h := range r.GetHolders() {
		got = append(got, fmt.Sprintf("%s by %s %d times under %s", h.GetIdentity(), h.GetWay(), h.GetCount(), h.GetRule()))
	}
	return got
}

func TestATokenIsFoundWithWhoWasGivenIt(t *testing.T) {
	r := auditRig(t, newMemory(handedOut()...), false, nil)
	r.serve(auditor)
	resp, err := auditsOf(r, auditor).FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{AccessToken: leakedToken})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"streamer by stream 1 times under s-team/a", "getter by get 2 times under r", "late by stream 1 times under s-team/a",
		"getter by report 1 times under "}
	if got := holdersOf(resp); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !resp.GetKnown() || resp.GetCredential() != "team/a" || resp.GetGeneration() != 3 || resp.GetTokenMac() != leakedMAC || resp.GetTruncated() || resp.GetOldestTime() == nil {
		t.Errorf("got %v %s %d %s %v", resp.GetKnown(), resp.GetCredential(), resp.GetGeneration(), resp.GetTokenMac(), resp.GetTruncated())
	}
	byMAC, err := auditsOf(r, team).FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{TokenMac: "k1:another"})
	if got := holdersOf(byMAC); err != nil || !slices.Equal(got, []string{"other by get 1 times under r", "never by stream 1 times under s-team/a"}) {
		t.Errorf("by its hash: got %v, %v", got, err)
	}
}

func TestATokenThatNobodyWasGivenIsKnown(t *testing.T) {
	r := auditRig(t, newMemory(audit.Record{Kind: audit.KindExchangeResult, Reason: "adopted", Credential: "team/a", TokenMAC: leakedMAC}), false, nil)
	r.serve(auditor)
	resp, err := auditsOf(r, auditor).FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{AccessToken: leakedToken})
	if err != nil || !resp.GetKnown() || len(resp.GetHolders()) != 0 {
		t.Errorf("got known=%v, %v, %v; want a token without holders", resp.GetKnown(), holdersOf(resp), err)
	}
}

func TestATokenOfAnothersCredentialIsAsUnknownAsOneOfNobody(t *testing.T) {
	records := handedOut()
	for i := range records {
		records[i].Credential = "other/a"
	}
	r := auditRig(t, newMemory(records...), false, nil)
	r.serve(auditor)
	find := func(token string) *tokenbrokerv1.FindTokenResponse {
		resp, err := auditsOf(r, team).FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{AccessToken: token})
		if err != nil {
			t.Fatal(err)
		}
		resp.TokenMac = ""
		return resp
	}
	got, want := find(leakedToken), find("no.such.token")
	if got.GetKnown() || got.GetCredential() != "" || len(got.GetHolders()) != 0 || got.GetOldestTime().AsTime() != want.GetOldestTime().AsTime() {
		t.Errorf("got known=%v %v, want what is said of a token that nobody knows", got.GetKnown(), holdersOf(got))
	}
}

func TestAStreamWhoseOpeningIsGoneIsAHolderWithoutName(t *testing.T) {
	r := auditRig(t, newMemory(audit.Record{Kind: audit.KindSystem, Action: "start"},
		audit.Record{Kind: audit.KindDeliver, Credential: "team/a", TokenMAC: leakedMAC, Streams: []uint64{7, 8}}), false, nil)
	r.serve(auditor)
	resp, err := auditsOf(r, auditor).FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{AccessToken: leakedToken})
	if got := holdersOf(resp); err != nil || !slices.Equal(got, []string{" by stream 2 times under "}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestManyHoldersAreCutAndSaidSo(t *testing.T) {
	m := newMemory()
	for i := range 1005 {
		m.add(audit.Record{Time: time.Now(), Kind: audit.KindCall, Action: "token.get", Identity: fmt.Sprint(i), Credential: "team/a", TokenMAC: leakedMAC})
	}
	r := auditRig(t, m, false, nil)
	r.serve(auditor)
	resp, err := auditsOf(r, auditor).FindToken(brief(t), &tokenbrokerv1.FindTokenRequest{TokenMac: leakedMAC})
	if err != nil || len(resp.GetHolders()) != 1000 || !resp.GetTruncated() {
		t.Errorf("got %d holders, truncated=%v, %v", len(resp.GetHolders()), resp.GetTruncated(), err)
	}
}

func TestFindTokenRefusesWhatIsNoToken(t *testing.T) {
	r := auditRig(t, newMemory(), false, nil)
	r.serve(auditor)
	for _, c := range []struct {
		req   *tokenbrokerv1.FindTokenRequest
		field string
	}{
		{&tokenbrokerv1.FindTokenRequest{}, "accessToken"},
		{&tokenbrokerv1.FindTokenRequest{AccessToken: "a", TokenMac: leakedMAC}, "accessToken"},
		{&tokenbrokerv1.FindTokenRequest{AccessToken: strings.Repeat("a", 100<<10)}, "accessToken"},
		{&tokenbrokerv1.FindTokenRequest{TokenMac: "no hash"}, "tokenMac"},
	} {
		_, err := auditsOf(r, auditor).FindToken(brief(t), c.req)
		if f := wantFault(t, err, codes.InvalidArgument, "FIELD_VIOLATION"); !slices.Equal(f.Fields, []string{c.field}) || strings.Contains(f.Text, "aaaa") {
			t.Errorf("got fields %v (%s), want %s", f.Fields, f.Text, c.field)
		}
	}
}
