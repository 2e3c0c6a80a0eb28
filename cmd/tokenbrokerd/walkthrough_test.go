package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// session is a person with grpcurl. What it runs is printed, so that the test's output reads like a terminal.
type session struct {
	t    testing.TB
	s    *site
	show io.Writer
}

// grpcurl is the command with the certificate of name.
func (u session) grpcurl(name string, args ...string) *exec.Cmd {
	files := []string{"-cacert", u.s.path("ca.pem"), "-cert", u.s.path(name + ".pem"), "-key", u.s.path(name + ".key")}
	return exec.Command("grpcurl", append(files, args...)...)
}

// do runs grpcurl as name and returns what it printed. exit is the status that it must end with: 64 + the gRPC code, or 0.
func (u session) do(exit int, name, stdin string, args ...string) string {
	u.t.Helper()
	out, got := u.try(name, stdin, args...)
	if got != exit {
		u.t.Errorf("got exit status %d, want %d", got, exit)
	}
	return out
}

// try runs grpcurl as name and returns what it printed, and its exit status. The address goes before the verb, or before the method, which is
// the last argument.
func (u session) try(name, stdin string, args ...string) (string, int) {
	u.t.Helper()
	verb := slices.IndexFunc(args, func(a string) bool { return a == "list" || a == "describe" })
	if verb < 0 {
		verb = len(args) - 1
	}
	args = slices.Insert(args, verb, *u.s.grpc.Load())
	if stdin != "" {
		args = append([]string{"-d", "@"}, args...)
	}
	cmd := u.grpcurl(name, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	_ = cmd.Wait()
	u.print(name, stdin, args, out.String(), cmd.ProcessState.ExitCode())
	return out.String(), cmd.ProcessState.ExitCode()
}

func (u session) print(name, stdin string, args []string, out string, exit int) {
	input := ""
	if stdin != "" {
		input = " <<'EOF'\n" + strings.TrimSpace(stdin) + "\nEOF"
	}
	_, _ = fmt.Fprintf(u.show, "\n%s$ grpcurl … %s%s\n%s\n", name, strings.Join(args, " "), input, strings.TrimSpace(redacted(out)))
	if exit > 0 {
		_, _ = fmt.Fprintf(u.show, "%s$ echo $?\n%d\n", name, exit)
	}
}

// redacted shows the beginning of tokens only: a log of tests is a log.
func redacted(out string) string {
	before, after, ok := strings.Cut(out, sandbox.AccessPrefix)
	if !ok {
		return out
	}
	_, after, _ = strings.Cut(after, `"`)
	return before + sandbox.AccessPrefix + `…"` + redacted(after)
}

func (u session) say(text string) { _, _ = fmt.Fprintf(u.show, "\n# %s\n", text) }

// TestWalkthrough is the broker from an empty folder to a token, with nothing but its own command and grpcurl. "make demo" shows it.
func TestWalkthrough(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, steady(time.Hour))
	s := newSite(t, up.provider("steady"))
	u := session{t: t, s: s, show: t.Output()}
	u.say("A folder with everything that a first broker needs")
	out, _ := cli(t, "init", filepath.Join(t.TempDir(), "tb"))
	_, _ = fmt.Fprintf(u.show, "$ tokenbrokerd init tb\n%s", out)
	u.say("serve, with a provider in tokenbroker.yaml")
	s.start()
	_, _ = fmt.Fprintf(u.show, "$ tokenbrokerd serve --config tb/tokenbroker.yaml\n%s", s.proc.line("serving"))

	t.Run("reflection", u.with(session.lookAround))
	t.Run("create", u.with(session.create))
	t.Run("token", u.with(session.token))
	t.Run("stream", u.with(session.stream))
	t.Run("errors", u.with(session.errors))
	s.stop()
}

func (u session) with(do func(session)) func(*testing.T) {
	return func(t *testing.T) {
		u.t, u.s.t, u.show = t, t, t.Output()
		do(u)
	}
}

func (u session) lookAround() {
	u.say("What is there? Reflection answers operators, over mTLS")
	want(u.t, u.do(0, "operator", "", "list"), "tokenbroker.v1.TokenService\n", "tokenbroker.v1.CredentialService\n",
		"tokenbroker.v1.OAuthClientService\n", "grpc.health.v1.Health\n")
	want(u.t, u.do(0, "operator", "", "describe", "tokenbroker.v1.TokenService"),
		"rpc GetToken ( .tokenbroker.v1.GetTokenRequest ) returns ( .tokenbroker.v1.GetTokenResponse );", "stream .tokenbroker.v1.SubscribeResponse")
	want(u.t, u.do(0, "operator", "", "-msg-template", "describe", ".tokenbroker.v1.CreateCredentialRequest"),
		"message CreateCredentialRequest {", `"refreshToken": ""`)
	want(u.t, u.do(0, "operator", `{}`, "grpc.health.v1.Health/Check"), "SERVING")
}

func (u session) create() {
	u.say("An OAuth client: the secret goes in by standard input, and never comes out")
	out := u.do(0, "operator", `{"oauthClient": "steady-job", "clientSecret": "`+secret+`",
  "spec": {"provider": "steady", "clientId": "job", "authMethod": "AUTH_METHOD_CLIENT_SECRET_BASIC"}}`,
		"tokenbroker.v1.OAuthClientService/CreateOAuthClient")
	want(u.t, out, `"fingerprint"`)
	if strings.Contains(out, secret) {
		u.t.Errorf("the reply holds the secret")
	}
	u.say("A credential: how tokens are obtained, under a name")
	want(u.t, u.do(0, "operator", `{"credential": "example/reports", "spec": {"provider": "steady", "oauthClient": "steady-job",
  "grantType": "GRANT_TYPE_CLIENT_CREDENTIALS", "scopes": ["reports.read"], "owner": "reports team"}}`,
		"tokenbroker.v1.CredentialService/CreateCredential"), `"example/reports"`, `"etag"`)
}

// protoFlags make grpcurl read the .proto files, for identities without a right to reflection.
func protoFlags() []string {
	return []string{"-import-path", "../../proto", "-proto", "tokenbroker/v1/token_service.proto"}
}

func (u session) token() {
	u.say("A worker gets a token; with the .proto files at hand it needs no reflection")
	out := u.do(0, "worker", `{"credential": "example/reports"}`, append(protoFlags(), "tokenbroker.v1.TokenService/GetToken")...)
	var reply struct {
		Token struct{ AccessToken, TokenType, ExpireTime, Generation string }
		State string
	}
	if err := json.Unmarshal([]byte(out), &reply); err != nil {
		u.t.Fatalf("the reply is no JSON: %v", err)
	}
	if !strings.HasPrefix(reply.Token.AccessToken, sandbox.AccessPrefix) || reply.Token.TokenType != "Bearer" || reply.Token.Generation == "" ||
		reply.State != "CREDENTIAL_STATE_READY" {
		u.t.Errorf("got state %s, type %s, generation %s, want a bearer token that is READY", reply.State, reply.Token.TokenType, reply.Token.Generation)
	}
	if at, err := time.Parse(time.RFC3339, reply.Token.ExpireTime); err != nil || time.Until(at) < 50*time.Minute {
		u.t.Errorf("got expiry %s, want one in an hour", reply.Token.ExpireTime)
	}
}

// used has the worker ask until the broker shows that it did: it keeps the time of the last use to the second.
func (u session) used() {
	u.t.Helper()
	worker, operator := u.s.conn("worker"), tokenbrokerv1.NewCredentialServiceClient(u.s.conn("operator"))
	eventually(u.t, "the time of the last use", func() bool {
		mustGet(u.t, worker, "example/reports")
		r, err := operator.GetCredential(u.t.Context(), &tokenbrokerv1.GetCredentialRequest{Credential: "example/reports"})
		return err == nil && r.GetCredential().GetStatus().GetLastUseTime() != nil
	})
}

func (u session) stream() {
	u.used()
	u.say("A worker subscribes: state first, then every change, while an operator looks at the credential")
	args := []string{"-d", `{"selectors": [{"credential": "example/reports"}, {"credential": "example/later"}]}`,
		*u.s.grpc.Load(), "tokenbroker.v1.TokenService/Subscribe"}
	sub := startProcess(u.t, u.grpcurl("worker", args...))
	sub.line(`"snapshotEnd"`)
	out := u.do(0, "operator", `{"credential": "example/reports"}`, "tokenbroker.v1.CredentialService/GetCredential")
	want(u.t, out, `"state": "CREDENTIAL_STATE_READY"`, `"recoveryAction": "RECOVERY_ACTION_NONE"`, `"lastUseTime"`, `"subscriberCount": 1`, `"refreshTime"`)
	u.say("A selector that was not there comes alive")
	u.do(0, "operator", `{"credential": "example/later", "spec": {"provider": "steady", "oauthClient": "steady-job",
  "grantType": "GRANT_TYPE_CLIENT_CREDENTIALS", "scopes": ["reports.write"]}}`, "tokenbroker.v1.CredentialService/CreateCredential")
	sub.line(`"reports.write"`)
	sub.kill()
	text := sub.out.String()
	u.print("worker", "", args, text, 0)
	want(u.t, text, `"update"`, `"removed"`, "REMOVED_REASON_NOT_FOUND", sandbox.AccessPrefix)
	if strings.Index(text, `"update"`) > strings.Index(text, `"snapshotEnd"`) {
		u.t.Errorf("the snapshot ended before the update of a credential that was there")
	}
}

// certificateThatEnds subscribes with a certificate that ends in a moment: on a machine that is too busy for its stream to open by then, with one
// that ends later.
func (u session) certificateThatEnds() {
	u.t.Helper()
	for life := 3 * time.Second; ; life *= 2 {
		u.s.issue("brief", mtls.Template{SPIFFEID: "spiffe://tokenbroker.local/worker/example", Client: true, NotAfter: time.Now().Add(life)})
		out, exit := u.try("brief", `{"selectors": [{"credential": "example/reports"}]}`, "tokenbroker.v1.TokenService/Subscribe")
		if !strings.Contains(out, `"snapshotEnd"`) && life < patience {
			continue
		}
		if want(u.t, out, "Code: Unauthenticated", "certificate has expired"); exit != 80 {
			u.t.Errorf("got exit status %d, want 80", exit)
		}
		return
	}
}

func (u session) errors() {
	u.say("Errors say what to do, and the exit status is 64 + the gRPC code")
	out := u.do(69, "operator", `{"credential": "example/none"}`, "-format-error", "tokenbroker.v1.TokenService/GetToken")
	want(u.t, out, `"code": 5`, `"@type": "type.googleapis.com/google.rpc.ErrorInfo"`, `"reason": "CREDENTIAL_NOT_FOUND"`,
		`"domain": "github.com/tokenbroker/tokenbroker"`, `"recoveryAction": "ASK_OPERATOR"`)
	want(u.t, u.do(69, "operator", `{"credential": "example/none"}`, "tokenbroker.v1.TokenService/GetToken"),
		"Code: NotFound", `"reason": "CREDENTIAL_NOT_FOUND"`)
	want(u.t, u.do(67, "operator", `{"credential": "No Such Name"}`, "tokenbroker.v1.TokenService/GetToken"), "FIELD_VIOLATION", "google.rpc.BadRequest", `"field": "credential"`)
	want(u.t, u.do(71, "worker", `{"credential": "example/reports"}`, "tokenbroker.v1.CredentialService/GetCredential"), "Code: PermissionDenied")
	want(u.t, u.do(70, "operator", `{"oauthClient": "steady-job", "clientSecret": "x", "spec": {"provider": "steady", "clientId": "job",
  "authMethod": "AUTH_METHOD_CLIENT_SECRET_BASIC"}}`, "tokenbroker.v1.OAuthClientService/CreateOAuthClient"), "ALREADY_EXISTS")
	u.say("Disabled: 73, a precondition; enabled again, it serves")
	u.do(0, "operator", `{"credential": "example/reports"}`, "tokenbroker.v1.CredentialService/DisableCredential")
	want(u.t, u.do(73, "operator", `{"credential": "example/reports"}`, "tokenbroker.v1.TokenService/GetToken"), "CREDENTIAL_DISABLED", `"recoveryAction": "ASK_OPERATOR"`)
	u.do(0, "operator", `{"credential": "example/reports"}`, "tokenbroker.v1.CredentialService/EnableCredential")
	u.do(0, "operator", `{"credential": "example/reports"}`, "tokenbroker.v1.TokenService/GetToken")

	u.say("A certificate that ends while it is in use: 80, and the stream with it")
	u.certificateThatEnds()
	u.say("Without a certificate there is no connection at all")
	cmd := exec.Command("grpcurl", "-cacert", u.s.path("ca.pem"), *u.s.grpc.Load(), "list")
	text, err := cmd.CombinedOutput()
	_, _ = fmt.Fprintf(u.show, "\n$ grpcurl -cacert ca.pem … list\n%s", text)
	if err == nil {
		u.t.Errorf("got services without a client certificate, want an error")
	}
}
