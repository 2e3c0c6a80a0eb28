package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// attempt is one call with bad input.
type attempt func(context.Context, *grpc.ClientConn) error

func get(r *tokenbrokerv1.GetTokenRequest) attempt {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := tokensOf(c).GetToken(ctx, r)
		return err
	}
}

func report(r *tokenbrokerv1.ReportRejectedRequest) attempt {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := tokensOf(c).ReportRejected(ctx, r)
		return err
	}
}

func subscribe(selectors ...*tokenbrokerv1.Selector) attempt {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		s, err := tokensOf(c).Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{Selectors: selectors})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
}

func create(name string, change func(*tokenbrokerv1.CreateCredentialRequest)) attempt {
	r := &tokenbrokerv1.CreateCredentialRequest{Credential: name, Spec: &tokenbrokerv1.CredentialSpec{Provider: "fast", OauthClient: "fast",
		GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS, Scopes: []string{"files.read"}}}
	if change != nil {
		change(r)
	}
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := credentialsOf(c).CreateCredential(ctx, r)
		return err
	}
}

func createClient(name string, change func(*tokenbrokerv1.CreateOAuthClientRequest)) attempt {
	r := &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: name, ClientSecret: "x", Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "fast", ClientId: "job",
		AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}}
	if change != nil {
		change(r)
	}
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := clientsOf(c).CreateOAuthClient(ctx, r)
		return err
	}
}

func update(r *tokenbrokerv1.UpdateCredentialRequest) attempt {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := credentialsOf(c).UpdateCredential(ctx, r)
		return err
	}
}

func list(size int32, token string) attempt {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := credentialsOf(c).ListCredentials(ctx, &tokenbrokerv1.ListCredentialsRequest{PageSize: size, PageToken: token})
		return err
	}
}

func many(n int, text string) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint(text, i))
	}
	return list
}

func selectors(n int) (list []*tokenbrokerv1.Selector) {
	for i := range n {
		list = append(list, sel(fmt.Sprint("example/n", i)))
	}
	return list
}

// badNames are no names of credentials.
var badNames = map[string]string{"empty": "", "upper case": "Example/api", "a leading slash": "/example", "a trailing slash": "example/",
	"two slashes": "a//b", "dots": "../../etc/passwd", "a blank": "a b", "unicode": "exämple/api", "an emoji": "a/🔑", "NUL": "a\x00b",
	"a newline": "a\nb", "129 bytes": strings.Repeat("a", 129), "100 kB": strings.Repeat("a", 100_000)}

func TestMalformedNamesAreRefusedEverywhere(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	conn := b.Operator()
	for what, name := range badNames {
		t.Run(what, func(t *testing.T) {
			for method, call := range aboutCredential {
				f := wantFault(t, call(brief(t), conn, name), codes.InvalidArgument, "FIELD_VIOLATION")
				if !slices.Equal(f.Fields, []string{"credential"}) || len(f.Text) > 1000 {
					t.Errorf("%s: got fields %v and a text of %d bytes, want credential and a short one", method, f.Fields, len(f.Text))
				}
			}
			f := wantFault(t, create(name, nil)(brief(t), conn), codes.InvalidArgument, "FIELD_VIOLATION")
			if !slices.Contains(f.Fields, "credential") {
				t.Errorf("Create: got fields %v, want credential", f.Fields)
			}
			f = wantFault(t, subscribe(sel("example/api"), sel(name))(brief(t), conn), codes.InvalidArgument, "FIELD_VIOLATION")
			if !slices.Equal(f.Fields, []string{"selectors[1].credential"}) {
				t.Errorf("Subscribe: got fields %v, want selectors[1].credential", f.Fields)
			}
			f = wantFault(t, createClient(name, nil)(brief(t), conn), codes.InvalidArgument, "FIELD_VIOLATION")
			if !slices.Equal(f.Fields, []string{"oauthClient"}) {
				t.Errorf("CreateOAuthClient: got fields %v, want oauthClient", f.Fields)
			}
		})
	}
	wantNothingMade(t, b, 1)
}

func TestBadInputIsRefusedWithItsField(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	conn := b.Operator()
	const api = "example/api"
	long := func(d time.Duration) attempt {
		return get(&tokenbrokerv1.GetTokenRequest{Credential: api, MinValidity: durationpb.New(d)})
	}
	grow := func(change func(*tokenbrokerv1.CreateCredentialRequest)) attempt {
		return create("example/new", change)
	}
	rows := []struct {
		name  string
		call  attempt
		field string
	}{
		{"1,000 scopes", get(&tokenbrokerv1.GetTokenRequest{Credential: api, Scopes: many(1000, "s")}), "scopes"},
		{"a scope with a blank", get(&tokenbrokerv1.GetTokenRequest{Credential: api, Scopes: []string{"a b"}}), "scopes"},
		{"a scope with a quote", get(&tokenbrokerv1.GetTokenRequest{Credential: api, Scopes: []string{`a"`}}), "scopes"},
		{"an empty scope", get(&tokenbrokerv1.GetTokenRequest{Credential: api, Scopes: []string{""}}), "scopes"},
		{"a scope of unicode", get(&tokenbrokerv1.GetTokenRequest{Credential: api, Scopes: []string{"lesen–ß"}}), "scopes"},
		{"a scope of 257 bytes", get(&tokenbrokerv1.GetTokenRequest{Credential: api, Scopes: []string{strings.Repeat("s", 257)}}), "scopes"},
		{"a subject of 321 bytes", get(&tokenbrokerv1.GetTokenRequest{Credential: api, Subject: strings.Repeat("s", 321)}), "subject"},
		{"an audience with a newline", get(&tokenbrokerv1.GetTokenRequest{Credential: api, Audience: "a\nb"}), "audience"},
		{"a negative validity", long(-time.Second), "minValidity"},
		{"a validity of 25 h", long(25 * time.Hour), "minValidity"},
		{"an overflowing validity", get(&tokenbrokerv1.GetTokenRequest{Credential: api, MinValidity: &durationpb.Duration{Seconds: 1 << 62}}), "minValidity"},
		{"a validity of mixed signs", get(&tokenbrokerv1.GetTokenRequest{Credential: api, MinValidity: &durationpb.Duration{Seconds: 1, Nanos: -1}}), "minValidity"},
		{"a report without generation", report(&tokenbrokerv1.ReportRejectedRequest{Credential: api, HttpStatus: 401}), "generation"},
		{"a report of success", report(&tokenbrokerv1.ReportRejectedRequest{Credential: api, Generation: 1, HttpStatus: 200}), "httpStatus"},
		{"a report of a negative status", report(&tokenbrokerv1.ReportRejectedRequest{Credential: api, Generation: 1, HttpStatus: -401}), "httpStatus"},
		{"a report with a text for a code", report(&tokenbrokerv1.ReportRejectedRequest{Credential: api, Generation: 1, HttpStatus: 401, ErrorCode: "a b\n"}), "errorCode"},
		{"no selectors", subscribe(), "selectors"},
		{"257 selectors", subscribe(selectors(257)...), "selectors"},
		{"a selector twice", subscribe(sel(api, "b", "a"), sel(api, "a", "b", "a")), "selectors"},
		{"a null selector", subscribe(sel(api), &tokenbrokerv1.Selector{}), "selectors[1].credential"},
		{"a selector with a bad scope", subscribe(sel(api, "a b")), "selectors[0].scopes"},
		{"a negative page size", list(-1, ""), "pageSize"},
		{"a page token that is no base64", list(0, "%%%"), "pageToken"},
		{"a page token of nobody", list(0, "c2VjcmV0"), "pageToken"},
		{"no spec", grow(func(r *tokenbrokerv1.CreateCredentialRequest) { r.Spec = nil }), "spec.grantType"},
		{"an unset grant", grow(func(r *tokenbrokerv1.CreateCredentialRequest) { r.Spec.GrantType = 0 }), "spec.grantType"},
		{"an unknown grant", grow(func(r *tokenbrokerv1.CreateCredentialRequest) { r.Spec.GrantType = 99 }), "spec.grantType"},
		{"an unknown provider", grow(func(r *tokenbrokerv1.CreateCredentialRequest) { r.Spec.Provider = "nobody" }), "spec.provider"},
		{"1,000 scopes to create", grow(func(r *tokenbrokerv1.CreateCredentialRequest) { r.Spec.Scopes = many(1000, "s") }), "spec.scopes"},
		{"33 labels", grow(func(r *tokenbrokerv1.CreateCredentialRequest) { r.Spec.Labels = labels(33) }), "spec.labels"},
		{"a label without key", grow(func(r *tokenbrokerv1.CreateCredentialRequest) { r.Spec.Labels = map[string]string{"": "x"} }), "spec.labels"},
		{"an owner of 1 kB", grow(func(r *tokenbrokerv1.CreateCredentialRequest) { r.Spec.Owner = strings.Repeat("o", 1024) }), "spec.owner"},
		{"a refresh token for another grant", grow(func(r *tokenbrokerv1.CreateCredentialRequest) { r.RefreshToken = "r" }), "refreshToken"},
		{"no refresh token", grow(func(r *tokenbrokerv1.CreateCredentialRequest) {
			r.Spec.GrantType = tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN
		}), "refreshToken"},
		{"a refresh token of 17 kB", grow(func(r *tokenbrokerv1.CreateCredentialRequest) {
			r.Spec.GrantType, r.RefreshToken = tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN, strings.Repeat("r", 17<<10)
		}), "refreshToken"},
		{"a time that is none", grow(func(r *tokenbrokerv1.CreateCredentialRequest) {
			r.RefreshTokenExpireTime = &timestamppb.Timestamp{Nanos: -1}
		}), "refreshTokenExpireTime"},
		{"a client secret of 17 kB", createClient("big", func(r *tokenbrokerv1.CreateOAuthClientRequest) { r.ClientSecret = strings.Repeat("s", 17<<10) }), "clientSecret"},
		{"an unknown method", createClient("odd", func(r *tokenbrokerv1.CreateOAuthClientRequest) { r.Spec.AuthMethod = 99 }), "spec.authMethod"},
		{"no client spec", createClient("odd", func(r *tokenbrokerv1.CreateOAuthClientRequest) { r.Spec = nil }), "spec.authMethod"},
		{"an unknown path", update(&tokenbrokerv1.UpdateCredentialRequest{Credential: api, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"refresh_token"}}}), "updateMask"},
		{"a path that can't change", update(&tokenbrokerv1.UpdateCredentialRequest{Credential: api, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"provider"}}}), "updateMask"},
		{"a star among paths", update(&tokenbrokerv1.UpdateCredentialRequest{Credential: api, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"*", "owner"}}}), "updateMask"},
		{"nothing to change", update(&tokenbrokerv1.UpdateCredentialRequest{Credential: api}), "updateMask"},
		{"a bad scope in an update", update(&tokenbrokerv1.UpdateCredentialRequest{Credential: api, Spec: &tokenbrokerv1.CredentialSpec{Scopes: []string{"a b"}}}), "spec.scopes"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := faultOf(t, row.call(brief(t), conn))
			if f.Code != codes.InvalidArgument || !slices.Contains(f.Fields, row.field) || f.Text == "" || len(f.Text) > 1000 {
				t.Errorf("got %v %v (%.200s), want INVALID_ARGUMENT at %s", f.Code, f.Fields, f.Text, row.field)
			}
		})
	}
	for _, etag := range []string{"x", "-1", "0", "18446744073709551616", strings.Repeat("9", 1000)} {
		wantFault(t, update(&tokenbrokerv1.UpdateCredentialRequest{Credential: api, Etag: etag, Spec: &tokenbrokerv1.CredentialSpec{Owner: "o"}})(brief(t), conn), codes.Aborted, "ETAG_MISMATCH")
	}
	wantNothingMade(t, b, 1)
	if got := b.Token(api); got.GetAccessToken() == "" {
		t.Error("the server gives no tokens any more")
	}
}

func labels(n int) map[string]string {
	m := map[string]string{}
	for _, k := range many(n, "k") {
		m[k] = "v"
	}
	return m
}

func TestSeveralBadFieldsAreToldAtOnce(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	f := faultOf(t, create("Bad", func(r *tokenbrokerv1.CreateCredentialRequest) {
		r.Credential, r.Spec.Scopes, r.Spec.Labels, r.RefreshToken = "example/new", []string{"a b"}, labels(33), "r"
	})(brief(t), b.Operator()))
	for _, want := range []string{"spec.scopes", "spec.labels", "refreshToken"} {
		if !slices.Contains(f.Fields, want) {
			t.Errorf("got fields %v, want %s among them", f.Fields, want)
		}
	}
}

func TestAMessageBeyondTheLimitIsRefused(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	for what, call := range map[string]attempt{
		"a name of 1 MB":    get(&tokenbrokerv1.GetTokenRequest{Credential: strings.Repeat("a", 1<<20)}),
		"100,000 selectors": subscribe(selectors(100_000)...),
		"a secret of 1 MB":  createClient("big", func(r *tokenbrokerv1.CreateOAuthClientRequest) { r.ClientSecret = strings.Repeat("s", 1<<20) }),
	} {
		if err := call(brief(t), b.Operator()); status.Code(err) != codes.ResourceExhausted || len(err.Error()) > 1000 {
			t.Errorf("%s: got %.200v, want RESOURCE_EXHAUSTED", what, err)
		}
	}
	wantNothingMade(t, b, 1)
}

// wantNothingMade checks that there are so many credentials, one OAuth client, and no token requests but for the credentials themselves.
func wantNothingMade(t *testing.T, b *brokertest.Broker, credentials int) {
	t.Helper()
	l, err := credentialsOf(b.Operator()).ListCredentials(brief(t), &tokenbrokerv1.ListCredentialsRequest{})
	if err != nil || len(l.GetCredentials()) != credentials {
		t.Errorf("got %d credentials (%v), want %d", len(l.GetCredentials()), err, credentials)
	}
	c, err := clientsOf(b.Operator()).ListOAuthClients(brief(t), &tokenbrokerv1.ListOAuthClientsRequest{})
	if err != nil || len(c.GetOauthClients()) != 1 {
		t.Errorf("got %d OAuth clients (%v), want 1", len(c.GetOauthClients()), err)
	}
	if n := b.Sandbox.Count(sandbox.Filter{}); n > credentials {
		t.Errorf("%d token requests were sent, want at most %d", n, credentials)
	}
}
