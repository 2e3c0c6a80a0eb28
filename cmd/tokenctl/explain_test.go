package main

import (
	"strconv"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/explain"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// local runs a command that needs no broker.
func local(t *testing.T, in string, args ...string) result {
	t.Helper()
	out, errs := &page{more: make(chan struct{}, 1)}, &page{more: make(chan struct{}, 1)}
	c := &cli{in: strings.NewReader(in), out: out, errs: errs}
	exit := c.run(t.Context(), args)
	return result{out: out.shown(), errs: errs.shown(), exit: exit}
}

func TestAnExitStatusIsExplained(t *testing.T) {
	for _, e := range exits {
		wants(t, local(t, "", "explain", strconv.Itoa(e.status)), exitOK, ", an exit status of tokenctl", e.means, strings.Fields(e.do)[0])
	}
	wants(t, local(t, "", "explain", "6", "-o", "json"), exitOK, `"kind": "exit status"`, `"do": "Run it again later`)
	for _, other := range []string{"127", "22", "400000"} {
		wants(t, local(t, "", "explain", other), exitNotFound, "the command that tokenctl exec or tokenctl curl ran", "tokenctl --help")
	}
}

func TestAWordIsExplained(t *testing.T) {
	wants(t, local(t, "", "explain", "reauthorization_required"), 0, "REAUTHORIZATION_REQUIRED, a reason", "gRPC code", "FAILED_PRECONDITION", "tokenctl connect CREDENTIAL --reauthorize", "Who acts")
	wants(t, local(t, "", "explain", "invalid_grant", "-o", "json"), 0, `"kind": "code"`, `"recoveryAction": "REAUTHORIZE"`)
	r := local(t, "", "explain", "--no-headers")
	if got, want := strings.Count(r.out, "\n"), len(explain.All()); r.exit != 0 || got != want {
		t.Errorf("got exit status %d and %d words, want all %d", r.exit, got, want)
	}
	wants(t, local(t, "", "explain", "invalid_grnat"), exitNotFound, "did you mean invalid_grant?", "tokenctl explain invalid_grant")
	wants(t, local(t, "", "explain", "hush-not-a-word-at-all"), exitNotFound, "there is no such word", "tokenctl explain\n")
	wants(t, local(t, "", "explain", "a", "b"), exitUsage, "argument 2 is too many")
	if got := beginning(explain.All(), "reauth"); len(got) < 2 {
		t.Errorf("got %v, want the reason and the state", got)
	}
}

func TestWhatSubscribeAndTheTrailSayIsExplained(t *testing.T) {
	for name, kind := range map[string]explain.Kind{"denied_summary": explain.KindDenial, "too_many_summary": explain.KindDenial, "unknown_method_summary": explain.KindDenial, "expired": explain.KindCode} {
		if e, ok := explain.Lookup(name); !ok || e.Kind != kind {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	for n, name := range tokenbrokerv1.RemovedReason_name {
		if _, ok := explain.Lookup(enum(name, "REMOVED_REASON_")); !ok && n != 0 {
			t.Errorf("%s has no entry", name)
		}
	}
	for _, r := range []policy.Reason{policy.ReasonRule, policy.ReasonAction, policy.ReasonCredential, policy.ReasonOAuthClient, policy.ReasonScope, policy.ReasonSubject,
		policy.ReasonAudience, policy.ReasonExpired} {
		if _, ok := explain.Lookup(string(r)); !ok {
			t.Errorf("%s has no entry", r)
		}
	}
	for _, check := range []string{policy.CheckWideCredential, policy.CheckUnrelatedIdentities, policy.CheckScopeWithoutRule, policy.CheckUnusedRule, policy.CheckAuditMode,
		policy.CheckAuditModeOver, policy.CheckWideScopes, policy.CheckWideSubjects, policy.CheckShadowedRule} {
		if e, ok := explain.Lookup(check); !ok || e.Kind != explain.KindFinding {
			t.Errorf("%s: got %+v, want a finding", check, e)
		}
	}
	for _, f := range []audit.Fault{audit.FaultEdited, audit.FaultMissing, audit.FaultReordered, audit.FaultTruncated, audit.FaultRewritten, audit.FaultUnsigned, audit.FaultMixed} {
		if e, ok := explain.Lookup(string(f)); !ok || e.Kind != explain.KindFault {
			t.Errorf("%s: got %+v, want a fault", f, e)
		}
	}
	wants(t, local(t, "", "explain", "wide_credential"), 0, "wide_credential, a finding")
	wants(t, local(t, "", "explain", "truncated"), 0, "truncated, a fault", "checkpoint")
	wants(t, local(t, "", "explain", "scopes_too_wide"), 0, "SCOPES_TOO_WIDE, a removal", "tokenctl policy explain")
	wants(t, local(t, "", "explain", "expired"), 0, "audit mode")
}

// TestTheCommandsOfExplanationsAreThere keeps explanations from naming a command or a flag that there is not.
func TestTheCommandsOfExplanationsAreThere(t *testing.T) {
	for _, e := range explain.All() {
		if command := e.Fill("example/x", "acme"); strings.HasPrefix(command, "tokenctl ") {
			checkCommand(t, command)
		}
	}
}

func TestALongTextIsFolded(t *testing.T) {
	if got := strings.Join(fold("one two  three four", 9), "|"); got != "one two|three|four" {
		t.Errorf("got %q", got)
	}
	if got := strings.Join(fold("", 9), "|"); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestAProfileIsLinted(t *testing.T) {
	dir := t.TempDir()
	good := put(t, dir, "acme.yaml", "token_endpoint: https://auth.acme.example/token\n")
	bad := put(t, dir, "bad.yaml", "token_endpoint: http://auth.acme.example/token\nauthorization_params: {response_type: token}\n")
	wants(t, local(t, "", "provider", "lint", good), 0, "advice")
	wants(t, local(t, "", "provider", "lint", bad), exitFix, "bad", "error", "the broker would refuse this")
	wants(t, local(t, "providers: {acme: {token_endpoint: 'http://a.example/token'}}", "provider", "lint", "-", "-o", "json"), exitFix, `"provider": "acme"`)
	wants(t, local(t, "", "provider", "lint", "hush"), exitUsage, "argument 1: no such file")
}
