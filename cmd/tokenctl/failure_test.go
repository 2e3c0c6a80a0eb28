package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// brokerError is an error as the broker sends it.
func brokerError(t *testing.T, code codes.Code, text, reason string, after time.Duration) error {
	t.Helper()
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Metadata: map[string]string{"recoveryAction": "RETRY"}}}
	if after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	st, err := status.New(code, text).WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

func TestAnErrorSaysWhatWhyAndWhatToDo(t *testing.T) {
	err := brokerError(t, codes.Unavailable, "the provider did not give a token", "UPSTREAM_UNAVAILABLE", 11200*time.Millisecond)
	f := refusal(err, target{noun: "credential", name: "example/drive"})
	want := `tokenctl: credential example/drive: the provider did not give a token
  reason  UPSTREAM_UNAVAILABLE
  action  wait and try again; the broker goes on trying by itself
  again   in 12 s
  do      tokenctl credential describe example/drive
  more    tokenctl explain UPSTREAM_UNAVAILABLE
`
	if f == nil || f.text() != want || f.exit != exitLater {
		t.Errorf("got %+v\n%s\nwant\n%s", f, f.text(), want)
	}
	if !errors.Is(f, err) {
		t.Error("where it came from is lost")
	}
}

func TestAnErrorOfALaterBrokerIsToldAsFarAsItIsUnderstood(t *testing.T) {
	f := refusal(brokerError(t, codes.FailedPrecondition, "the moon is full", "MOON_PHASE", 0), target{})
	if f == nil || f.exit != exitFix || f.reason != "MOON_PHASE" || f.do != "" {
		t.Errorf("got %+v, want exit status %d and the reason", f, exitFix)
	}
}

func TestAnErrorWithoutAReasonIsNotTheBrokers(t *testing.T) {
	if f := refusal(status.Error(codes.Unavailable, "connection refused"), target{}); f != nil {
		t.Errorf("got %+v, want nil", f)
	}
}

func TestNothingFromTheBrokerGetsToTheTerminalAsItIs(t *testing.T) {
	f := refusal(brokerError(t, codes.NotFound, "\x1b[2Jgone\r\nrm -rf", "R\x07EASON", 0), target{noun: "client", name: "x\x9b"})
	text := f.text()
	if i := strings.IndexFunc(strings.ReplaceAll(text, "\n", ""), unsafe); i >= 0 || strings.Contains(text, "\nrm") {
		t.Errorf("got %q", text)
	}
}

func TestATargetIsWhatARequestNames(t *testing.T) {
	for _, row := range []struct {
		req  any
		want target
	}{
		{&tokenbrokerv1.GetTokenRequest{Credential: "a"}, target{noun: "credential", name: "a", worker: true}},
		{&tokenbrokerv1.ReportRejectedRequest{Credential: "a"}, target{noun: "credential", name: "a", worker: true}},
		{&tokenbrokerv1.GetCredentialRequest{Credential: "a"}, target{noun: "credential", name: "a"}},
		{&tokenbrokerv1.DeleteOAuthClientRequest{OauthClient: "b"}, target{noun: "client", name: "b"}},
		{&tokenbrokerv1.RetireClientSecretRequest{OauthClient: "c"}, target{noun: "client", name: "c", secret: true}},
		{&tokenbrokerv1.ListCredentialsRequest{}, target{noun: "client"}},
	} {
		if got := targetOf(row.req); got != row.want {
			t.Errorf("%T: got %+v, want %+v", row.req, got, row.want)
		}
	}
}

// TestAWorkerIsToldWhoseTheCommandIs keeps advice from sending a worker into a denial: all that is for it are the token methods.
func TestAWorkerIsToldWhoseTheCommandIs(t *testing.T) {
	at := targetOf(&tokenbrokerv1.GetTokenRequest{Credential: "example/x"})
	for reason, want := range map[string]string{
		"CREDENTIAL_MISCONFIGURED":  "an operator: tokenctl credential describe example/x",
		"CREDENTIAL_NOT_FOUND":      "an operator: tokenctl credential list",
		"CREDENTIAL_DISABLED":       "an operator: tokenctl credential enable example/x",
		"MIN_VALIDITY_UNATTAINABLE": "tokenctl get example/x -o table",
		"UNKNOWN_METHOD":            "tokenctl version",
		"CALLER_NOT_ALLOWED":        "",
	} {
		f := refusal(brokerError(t, codes.FailedPrecondition, "no", reason, 0), at)
		if f.do != want {
			t.Errorf("%s: got %q, want %q", reason, f.do, want)
		}
	}
	for reason, r := range remedies {
		if words := strings.Fields(at.command(r.do)); len(words) > 0 && words[0] == "tokenctl" && !slices.Contains([]string{"get", "version", "provider"}, words[1]) {
			t.Errorf("%s: a worker is sent to %q", reason, r.do)
		}
	}
}

func TestACommandIsLeftOutWhenItsNameIsNotKnown(t *testing.T) {
	if got := (target{noun: "client"}).command("tokenctl {noun} describe {name}"); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
	if got := (target{noun: "client"}).command("tokenctl client list"); got != "tokenctl client list" {
		t.Errorf("got %q", got)
	}
}

func TestAWordIsOneWordOfAShell(t *testing.T) {
	for in, want := range map[string]string{"example/a-b_c.d": "example/a-b_c.d", "": "''", "a b": "'a b'", "a'b": `'a'\''b'`, "$(id)": "'$(id)'", "ä": "'ä'"} {
		if got := word(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestADelayIsSpeltInSecondsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Millisecond: "1 s", time.Second: "1 s", 11200 * time.Millisecond: "12 s", 90 * time.Second: "1m30s"} {
		if got := spell(d); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
}

func TestAnErrorNamesTheFieldThatIsWrong(t *testing.T) {
	st, err := status.New(codes.InvalidArgument, "name is empty").WithDetails(&errdetails.ErrorInfo{Reason: "FIELD_VIOLATION"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "spec.oauth_client"}, {Field: "scopes"}}})
	if err != nil {
		t.Fatal(err)
	}
	if f := refusal(st.Err(), target{noun: "credential", name: "example/x"}); !strings.Contains(f.text(), "\n  field   spec.oauth_client, scopes\n") {
		t.Errorf("got %s, want the fields", f.text())
	}
}

// agentError is an error that an agent made, as it sends it.
func agentError(t *testing.T, code codes.Code, text, reason string) error {
	t.Helper()
	st, err := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Reason: reason, Metadata: map[string]string{"recoveryAction": "RETRY", "origin": "agent"}})
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

func TestWhatAnAgentRefusesIsForItsHostToMend(t *testing.T) {
	for reason, c := range map[string]struct {
		code codes.Code
		want string
	}{
		"AUDIT_UNAVAILABLE":    {codes.Unavailable, "on this host has to look at the disk of the agent's audit log"},
		"CREDENTIAL_NOT_FOUND": {codes.NotFound, "in agent.yaml"},
		"CERTIFICATE_EXPIRED":  {codes.Unauthenticated, "whoever runs the agent"},
		"INTERNAL":             {codes.Internal, "a fault of the agent"},
	} {
		f := refusal(agentError(t, c.code, "no", reason), workers("example/api"))
		of := refusal(brokerError(t, c.code, "no", reason, 0), workers("example/api"))
		if !strings.Contains(f.action, c.want) || strings.Contains(f.text(), "broker's") || f.do != "" || f.exit != of.exit {
			t.Errorf("%s: got exit status %d and\n%s\nwant %d, %q and no command that the agent refuses", reason, f.exit, f.text(), of.exit, c.want)
		}
		if strings.Contains(of.text(), "agent") {
			t.Errorf("%s of a broker: got\n%s\nwant nothing of an agent", reason, of.text())
		}
	}
}
