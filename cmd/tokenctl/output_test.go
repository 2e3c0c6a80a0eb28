package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestTimesAreSeenFromNow(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		after time.Duration
		want  string
	}{
		{0, "in 0s"}, {59 * time.Second, "in 59s"}, {252 * time.Second, "in 4m12s"}, {3*time.Hour + 5*time.Minute + 7*time.Second, "in 3h5m"},
		{50 * time.Hour, "in 2d2h"}, {-time.Second, "1s ago"}, {-90 * time.Minute, "1h30m ago"},
	} {
		if got := relative(timestamppb.New(now.Add(row.after)), now); got != row.want {
			t.Errorf("%s: got %q, want %q", row.after, got, row.want)
		}
	}
	if got := relative(nil, now); got != "-" {
		t.Errorf("got %q, want - for no time", got)
	}
	if got, want := both(timestamppb.New(now.Add(time.Minute)), now, ""), "2026-11-28T12:01:00Z (in 1m0s)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := both(nil, now, "never"); got != "never" {
		t.Errorf("got %q, want what stands for no time", got)
	}
}

func TestATableIsAlignedAndClean(t *testing.T) {
	var b strings.Builder
	c := &cli{}
	if err := c.table(&b, []string{"NAME", "STATE"}, [][]string{{"a", "READY"}, {"long/name", "x\ty\n"}}); err != nil {
		t.Fatal(err)
	}
	if want := "NAME       STATE\na          READY\nlong/name  x\\u0009y\\u000a\n"; b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestYAMLKeepsEscapesAsTheyLook(t *testing.T) {
	m := &tokenbrokerv1.GetCredentialResponse{Credential: &tokenbrokerv1.Credential{Spec: &tokenbrokerv1.CredentialSpec{
		Owner: "a\x1b[31m\b\f\r\u202eb", Subject: `back\\slash \u0041 "quoted" <&>`, Scopes: []string{"yes", "1", "two\nlines"}}}}
	data, err := encode(m, "yaml")
	if err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(strings.ReplaceAll(string(data), "\n", ""), unsafe); i >= 0 {
		t.Errorf("a control character got out: %q", data)
	}
	var back tokenbrokerv1.GetCredentialResponse
	if err := parseRequest("what was printed", data, &back); err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	spec := back.GetCredential().GetSpec()
	if want := `a\u001b[31m\b\f\r\u202eb`; spec.GetOwner() != want {
		t.Errorf("got %q, want %q", spec.GetOwner(), want)
	}
	if want := m.GetCredential().GetSpec().GetSubject(); spec.GetSubject() != want {
		t.Errorf("got %q, want %q", spec.GetSubject(), want)
	}
	if got := strings.Join(spec.GetScopes(), "|"); got != "yes|1|two\nlines" {
		t.Errorf("got %q", got)
	}
}

func TestEachStateAndActionHasAWord(t *testing.T) {
	for n := range tokenbrokerv1.RecoveryAction_name {
		if got := actionWord(tokenbrokerv1.RecoveryAction(n)); got == "" || strings.ContainsAny(got, "_ABC") {
			t.Errorf("action %d: got %q, want a word for people", n, got)
		}
	}
	for n := range tokenbrokerv1.CredentialState_name {
		if got := stateWord(tokenbrokerv1.CredentialState(n)); strings.Contains(got, "CREDENTIAL") {
			t.Errorf("state %d: got %q", n, got)
		}
	}
	for action := range recoveries {
		if _, ok := tokenbrokerv1.RecoveryAction_value["RECOVERY_ACTION_"+action]; !ok {
			t.Errorf("the protocol has no action %s", action)
		}
	}
	if got, want := len(recoveries), len(tokenbrokerv1.RecoveryAction_name)-1; got != want {
		t.Errorf("got words for %d actions, want %d", got, want)
	}
}

func TestEachGrantAndMethodOfTheProtocolCanBeNamed(t *testing.T) {
	if got, want := len(grants), len(tokenbrokerv1.GrantType_name)-1; got != want {
		t.Errorf("got %d grants, want %d", got, want)
	}
	for name, g := range grants {
		if grantWord(g) != name {
			t.Errorf("got %q for %q", grantWord(g), name)
		}
	}
	if got, want := len(authMethods), len(tokenbrokerv1.AuthMethod_name)-1; got != want {
		t.Errorf("got %d methods, want %d", got, want)
	}
	for name, m := range authMethods {
		if authWord(m) != name {
			t.Errorf("got %q for %q", authWord(m), name)
		}
	}
}

func TestATokenThatIsNoneIsNotPrinted(t *testing.T) {
	for token, want := range map[string]bool{"sandbox_at_123": true, "with blank": true, "line\nbreak": false, "esc\x1b": false, "ü": false} {
		if got := visible(token); got != want {
			t.Errorf("%q: got %v, want %v", token, got, want)
		}
	}
	for in, want := range map[string]string{"": "Bearer", "bearer": "Bearer", "DPoP": "DPoP"} {
		if got := scheme(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
