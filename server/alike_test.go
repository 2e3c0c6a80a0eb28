package server_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/store/bolt"
)

// narrowPolicy gives workers one of two scopes, and a stranger everything on what is its own.
const narrowPolicy = brokertest.DefaultPolicy + `  - name: strangers
    identities: ["spiffe://brokertest.local/stranger/*"]
    actions: ["token.*", "credential.*", "oauth_client.*"]
    credentials: ["stranger/**"]
    oauth_clients: ["stranger/**"]
    scopes: ["**"]
  - name: readers
    identities: ["spiffe://brokertest.local/reader/*"]
    actions: ["token.*"]
    credentials: ["example/*"]
    scopes: ["files.read"]
  - name: choosers
    identities: ["spiffe://brokertest.local/chooser/*"]
    actions: ["token.*"]
    credentials: ["example/*"]
    scopes: ["**"]
    audiences: ["https://api.example/**"]
    subjects: ["*@example.org"]
`

const stranger, reader, chooser = domain + "/stranger/1", domain + "/reader/1", domain + "/chooser/1"

// aboutCredential are the methods that take one credential, each with a well-formed request.
var aboutCredential = map[string]func(context.Context, *grpc.ClientConn, string) error{
	"GetToken": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := tokensOf(c).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: name})
		return err
	},
	"GetToken with scopes": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := tokensOf(c).GetToken(ctx, &tokenbrokerv1.GetTokenRequest{Credential: name, Scopes: []string{"admin"}, Audience: "a", Subject: "s"})
		return err
	},
	"ReportRejected": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := tokensOf(c).ReportRejected(ctx, &tokenbrokerv1.ReportRejectedRequest{Credential: name, Generation: 1, HttpStatus: 401})
		return err
	},
	"Get": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := credentialsOf(c).GetCredential(ctx, &tokenbrokerv1.GetCredentialRequest{Credential: name})
		return err
	},
	"Update": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := credentialsOf(c).UpdateCredential(ctx, &tokenbrokerv1.UpdateCredentialRequest{Credential: name, Etag: "1", Spec: &tokenbrokerv1.CredentialSpec{Owner: "x"}})
		return err
	},
	"Delete": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := credentialsOf(c).DeleteCredential(ctx, &tokenbrokerv1.DeleteCredentialRequest{Credential: name, Etag: "7"})
		return err
	},
	"Disable": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := credentialsOf(c).DisableCredential(ctx, &tokenbrokerv1.DisableCredentialRequest{Credential: name})
		return err
	},
	"Enable": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := credentialsOf(c).EnableCredential(ctx, &tokenbrokerv1.EnableCredentialRequest{Credential: name})
		return err
	},
	"Refresh": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := credentialsOf(c).RefreshCredential(ctx, &tokenbrokerv1.RefreshCredentialRequest{Credential: name})
		return err
	},
	"Import": func(ctx context.Context, c *grpc.ClientConn, name string) error {
		_, err := credentialsOf(c).ImportRefreshToken(ctx, &tokenbrokerv1.ImportRefreshTokenRequest{Credential: name, RefreshToken: "r"})
		return err
	},
}

func wire(t *testing.T, err error) string {
	t.Helper()
	raw, merr := proto.MarshalOptions{Deterministic: true}.Marshal(status.Convert(err).Proto())
	if merr != nil {
		t.Fatal(merr)
	}
	return string(raw)
}

func TestS16UnknownAndForbiddenCredentialsAnswerAlike(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: narrowPolicy})
	b.AddClientCredentials("example/api", "files.read")
	b.AddRefreshToken("example/disabled", "rotating", "files.read")
	b.AddClientCredentials("example/broken", "files.read")
	disable(t, b, "example/disabled")
	b.Token("example/api")
	tamper(t, b, "example/broken")
	conn := b.Conn(stranger)
	for method, call := range aboutCredential {
		t.Run(method, func(t *testing.T) {
			unknown := call(brief(t), conn, "stranger/none") // one that the rules cover and that is not there
			wantFault(t, unknown, codes.NotFound, "CREDENTIAL_NOT_FOUND")
			for _, name := range []string{"example/api", "example/disabled", "example/broken", "example/none"} {
				if got, want := wire(t, call(brief(t), conn, name)), wire(t, unknown); got != want {
					t.Errorf("%s: got %q, want %q as for an unknown one", name, got, want)
				}
			}
		})
	}
}

// What takes time is to read a credential from the store. Whoever may not use it does not have it read, so that an answer takes as long as
// that about one which is not there.
func TestS16AForbiddenCredentialIsNotLookedUp(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: narrowPolicy})
	b.AddClientCredentials("example/api", "files.read")
	b.Restart() // so that it is on disk alone
	conn := b.Conn(stranger)
	for method, call := range aboutCredential {
		wantFault(t, call(brief(t), conn, "example/api"), codes.NotFound, "CREDENTIAL_NOT_FOUND")
		if b.Daemon.Broker().Loaded("example/api") {
			t.Fatalf("%s had a credential read for a caller who may not use it", method)
		}
	}
	if _, err := tokensOf(b.Conn(reader)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}); err != nil || !b.Daemon.Broker().Loaded("example/api") {
		t.Errorf("who may use it: %v", err)
	}
}

func disable(t *testing.T, b *brokertest.Broker, name string) {
	t.Helper()
	if _, err := credentialsOf(b.Operator()).DisableCredential(brief(t), &tokenbrokerv1.DisableCredentialRequest{Credential: name}); err != nil {
		t.Fatal(err)
	}
}

// tamper restarts the broker with a damaged record of a credential.
func tamper(t *testing.T, b *brokertest.Broker, name string) {
	t.Helper()
	b.Shutdown()
	engine, err := bolt.Open(filepath.Join(b.Dir, "tokenbroker.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	key := store.Key{Bucket: "credential", Name: name}
	was, err := engine.Read(t.Context(), key)
	if err != nil || len(was.Entries) != 1 || len(was.Entries[0].Value) == 0 {
		t.Fatalf("read the record: %+v, %v", was, err)
	}
	spoilt := slices.Clone(was.Entries[0].Value)
	spoilt[len(spoilt)-1] ^= 1
	if _, err := engine.Txn(t.Context(), store.Txn{Do: []store.Op{{Key: key, Value: spoilt}}}); err != nil {
		t.Fatal(err)
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	b.Restart()
}

func TestS16ASubscriberCanNotTellUnknownFromForbidden(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: narrowPolicy})
	b.AddClientCredentials("example/api", "files.read")
	w := watch(t, b.Conn(stranger), sel("example/api"), sel("example/none"), sel("stranger/none"))
	for range 3 {
		r := w.next().GetRemoved()
		if r == nil || r.GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_FOUND || r.GetSelector().GetCredential() == "" {
			t.Errorf("got %v, want removed with NOT_FOUND", r)
		}
	}
	if w.next().GetSnapshotEnd() == nil {
		t.Error("got something else, want snapshot_end")
	}
}

func TestScopesBeyondTheRuleAreRefusedByName(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: narrowPolicy})
	b.AddClientCredentials("example/wide", "files.read", "files.write")
	tokens := tokensOf(b.Conn(reader))
	for name, scopes := range map[string][]string{"asked for": {"files.read", "files.write"}, "the credential's own": nil} {
		t.Run(name, func(t *testing.T) {
			r, err := tokens.GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/wide", Scopes: scopes})
			f := wantFault(t, err, codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
			if f.Meta["scope"] != "files.write" || r.GetToken() != nil {
				t.Errorf("got scope %q and token %v, want files.write named and no token", f.Meta["scope"], r.GetToken() != nil)
			}
		})
	}
	w := watch(t, b.Conn(reader), sel("example/wide"), sel("example/wide", "files.read"))
	if r := w.next().GetRemoved(); r.GetReason() != tokenbrokerv1.RemovedReason_REMOVED_REASON_NOT_ALLOWED {
		t.Errorf("got %v for the wide scopes, want removed with NOT_ALLOWED", r)
	}
	narrow, err := tokens.GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/wide", Scopes: []string{"files.read"}})
	if err != nil {
		t.Fatal(err)
	}
	wide := b.Token("example/wide")
	if got := narrow.GetToken(); !slices.Equal(got.GetScopes(), []string{"files.read"}) || got.GetAccessToken() == wide.GetAccessToken() {
		t.Errorf("got scopes %v, want the narrow token and not the wide one", got.GetScopes())
	}
}

func TestOnlyARuleLetsACallerChooseSubjectAndAudience(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Policy: narrowPolicy})
	b.Add(&tokenbrokerv1.CreateCredentialRequest{Credential: "example/aud", Spec: &tokenbrokerv1.CredentialSpec{Provider: "fast",
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: []string{"files.read"}, Audience: "https://own.example"}})
	for _, row := range []struct {
		name, identity, subject, audience string
		reason, field                     string
	}{
		{"the credential's own audience by name", reader, "", "https://own.example", "", ""},
		{"another audience without a rule", reader, "", "https://api.example/x", "SCOPE_NOT_ALLOWED", "audience"},
		{"an audience of the rule", chooser, "", "https://api.example/x", "", ""},
		{"an audience beyond the rule", chooser, "", "https://other.example/", "SCOPE_NOT_ALLOWED", "audience"},
		{"a subject without a rule", reader, "a@example.org", "", "SCOPE_NOT_ALLOWED", "subject"},
		{"a subject beyond the rule", chooser, "a@other.org", "", "SCOPE_NOT_ALLOWED", "subject"},
		{"a subject of the rule that the grant can't choose", chooser, "a@example.org", "", "SCOPE_NOT_ALLOWED", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := b.Sandbox.Count(sandbox.Filter{})
			_, err := tokensOf(b.Conn(row.identity)).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/aud", Subject: row.subject, Audience: row.audience})
			if row.reason == "" {
				if err != nil {
					t.Errorf("got %v, want a token", err)
				}
				return
			}
			f := wantFault(t, err, codes.PermissionDenied, row.reason)
			if row.field != "" && !slices.Equal(f.Fields, []string{row.field}) {
				t.Errorf("got fields %v, want %s", f.Fields, row.field)
			}
			if got := b.Sandbox.Count(sandbox.Filter{}); got != before {
				t.Errorf("%d token requests were sent", got-before)
			}
		})
	}
}
