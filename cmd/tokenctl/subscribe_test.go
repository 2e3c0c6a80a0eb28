package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// follower is a subscription whose stream the test is.
func follower(left int) (*subscription, *strings.Builder, *strings.Builder) {
	var out, errs strings.Builder
	s := &session{cli: &cli{out: &out, errs: &errs, format: "table", noHeaders: true}}
	return &subscription{session: s, names: []string{"a", "b"}, left: left, known: map[string]state{}}, &out, &errs
}

func update(name string, generation, revision uint64) *tokenbrokerv1.SubscribeResponse {
	return &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{Update: &tokenbrokerv1.Update{
		Selector: &tokenbrokerv1.Selector{Credential: name}, Generation: generation, Revision: revision,
		State: tokenbrokerv1.CredentialState_CREDENTIAL_STATE_READY, Token: &tokenbrokerv1.Token{AccessToken: "hush", TokenType: "Bearer"}}}}
}

func removed(name string, reason tokenbrokerv1.RemovedReason) *tokenbrokerv1.SubscribeResponse {
	return &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Removed{Removed: &tokenbrokerv1.Removed{
		Selector: &tokenbrokerv1.Selector{Credential: name}, Reason: reason}}}
}

func TestEachWordFitsIntoItsColumn(t *testing.T) {
	s, out, _ := follower(0)
	if err := s.take(update("a", 5, 1)); err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(strings.TrimSpace(out.String()), "  ")
	for n := range tokenbrokerv1.RemovedReason_name {
		s, out, _ := follower(0)
		_ = s.take(removed("a", tokenbrokerv1.RemovedReason(n))) // TOO_MANY ends it
		if got := strings.LastIndex(strings.TrimSpace(out.String()), "  "); got != at && n != 0 {
			t.Errorf("the last column begins at %d, want %d: %s", got, at, out)
		}
	}
}

func TestNothingIsPrintedTwice(t *testing.T) {
	const notFound = tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_FOUND
	s, out, _ := follower(0)
	for _, step := range []struct {
		m     *tokenbrokerv1.SubscribeResponse
		lines int // printed so far
	}{
		{update("a", 5, 1), 1},
		{update("a", 5, 1), 1}, // the snapshot of the next connection
		{update("a", 4, 9), 1}, // an older one
		{update("b", 5, 1), 2},
		{update("a", 5, 2), 3},
		{update("a", 6, 1), 4},
		{removed("a", notFound), 5},
		{removed("a", notFound), 5},
		{removed("a", tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_ALLOWED), 6},
		{update("a", 6, 1), 7}, // back again, as it was
		{&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_SnapshotEnd{}}, 7},
		{&tokenbrokerv1.SubscribeResponse{}, 7}, // a kind that a later broker has
	} {
		if err := s.take(step.m); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "\n"); got != step.lines {
			t.Fatalf("got %d lines, want %d:\n%s", got, step.lines, out)
		}
	}
	if strings.Contains(out.String(), "hush") {
		t.Errorf("the token got out:\n%s", out)
	}
}

func TestASubscriptionEndsAfterItsCount(t *testing.T) {
	s, _, _ := follower(2)
	if err := s.take(update("a", 1, 1)); err != nil {
		t.Errorf("got %v after one event", err)
	}
	if err := s.take(update("b", 1, 1)); !errors.Is(err, errEnough) {
		t.Errorf("got %v after two, want the end", err)
	}
}

func TestAMessageHasItsTokenOnlyWhenAsked(t *testing.T) {
	s, out, _ := follower(0)
	s.format = "json"
	m := update("a", 1, 1)
	if err := s.message(out, m); err != nil || strings.Contains(out.String(), "hush") || !strings.Contains(out.String(), `"tokenType":"Bearer"`) {
		t.Errorf("got %v, %s", err, out)
	}
	if s.showToken = true; s.message(out, m) != nil || !strings.Contains(out.String(), `"accessToken":"hush"`) {
		t.Errorf("got %s, want the token, which the message has lost", out)
	}
}

func TestTroubleEndsASubscriptionOnlyWhenWaitingCanNotHelp(t *testing.T) {
	down, wrong := &failure{exit: exitLater, what: "nothing listens there"}, &failure{exit: exitFix, what: "not that broker"}
	malformed := &failure{exit: exitUsage, what: "no such name"}
	for _, row := range []struct {
		name       string
		err        error
		live, late bool
		ends       bool
	}{
		{"down, at the start", down, false, false, false},
		{"down, for too long", down, false, true, true},
		{"down, after it worked", down, true, true, false},
		{"the wrong broker", wrong, false, false, true},
		{"the wrong broker, after it worked", wrong, true, true, false},
		{"malformed", malformed, true, false, true},
		{"standard output is gone", errors.New("write: broken pipe"), true, false, true},
	} {
		s, _, errs := follower(0)
		s.live = row.live
		err := s.trouble(row.err, row.late)
		if (err != nil) != row.ends {
			t.Errorf("%s: got %v, want an end: %v", row.name, err, row.ends)
		}
		if told := strings.Contains(errs.String(), "connecting again"); told == row.ends {
			t.Errorf("%s: got %q", row.name, errs)
		}
	}
}

func TestTroubleIsToldOnceUntilItChanges(t *testing.T) {
	s, _, errs := follower(0)
	s.live = true
	for _, what := range []string{"one", "one", "two"} {
		if err := s.trouble(&failure{exit: exitLater, what: what}, false); err != nil {
			t.Fatal(err)
		}
	}
	s.alive()
	s.alive()
	if want := "tokenctl: one; connecting again\ntokenctl: two; connecting again\ntokenctl: connected again\n"; errs.String() != want {
		t.Errorf("got %q, want %q", errs, want)
	}
}

func TestThePauseGrowsToABound(t *testing.T) {
	for n := range 100 {
		if d := delay(n); d < 0 || d > 10*time.Second || n == 0 && d > 100*time.Millisecond {
			t.Errorf("after %d failures: %s", n, d)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := wait(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want an end with the context", err)
	}
}

func TestACredentialWithTooManyVariantsIsAskedForAgain(t *testing.T) {
	s, out, _ := follower(0)
	err := s.take(removed("a", tokenbrokerv1.RemovedReason_REMOVED_REASON_TOO_MANY))
	if f, ok := errors.AsType[*failure](err); !ok || f.exit != exitLater || !strings.Contains(out.String(), "TOO_MANY") {
		t.Errorf("got %v and %q, want another connection", err, out)
	}
}
