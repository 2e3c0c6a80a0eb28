package server_test

import (
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// The two secrets that replies may hold: each in the reply that is made to carry it, and in no other.
const (
	accessToken = "tokenbroker.v1.Token.access_token"
	consentLink = "tokenbroker.v1.BeginConsentResponse.link"
)

// secretName fits the names that fields with secrets have; notSecret those that only look so, and secretToo those that do not.
var (
	secretToo = map[protoreflect.FullName]bool{
		consentLink: true, // who has it can consent
		"tokenbroker.v1.CompleteConsentRequest.callback_url": true, // holds the authorization code
	}

	secretName = regexp.MustCompile(`secret|password|passphrase|private|assertion|verifier|(^|_)(token|key|code)$`)
	notSecret  = map[protoreflect.FullName]bool{
		"tokenbroker.v1.CredentialStatus.code":                    true, // an error code
		"tokenbroker.v1.ReportRejectedRequest.error_code":         true,
		"tokenbroker.v1.Revocation.code":                          true,
		"tokenbroker.v1.CheckCredentialResponse.code":             true,
		"tokenbroker.v1.AuditRecord.code":                         true,
		"tokenbroker.v1.AuditFilter.code":                         true,
		"tokenbroker.v1.ListAuditRecordsRequest.page_token":       true,
		"tokenbroker.v1.ListAuditRecordsResponse.next_page_token": true,
		"tokenbroker.v1.Consent.code":                             true,
		"tokenbroker.v1.BeginConsentResponse.user_code":           true, // shown to be typed in at the provider; of no use without the device code
		"tokenbroker.v1.ListCredentialsRequest.page_token":        true,
		"tokenbroker.v1.ListCredentialsResponse.next_page_token":  true,
		"tokenbroker.v1.ListOAuthClientsRequest.page_token":       true,
		"tokenbroker.v1.ListOAuthClientsResponse.next_page_token": true,
		"tokenbroker.v1.RetireClientSecretRequest.secret_id":      true,
		"tokenbroker.v1.ClientSecret.secret_id":                   true,
	}
)

func eachService(t *testing.T, visit func(protoreflect.MethodDescriptor)) {
	t.Helper()
	n := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("tokenbroker.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				n++
				visit(f.Services().Get(i).Methods().Get(j))
			}
		}
		return true
	})
	if n < 19 {
		t.Fatalf("found %d methods, the services are not linked in", n)
	}
}

// fields visits all fields that a message can reach.
func fields(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool, visit func(protoreflect.FieldDescriptor)) {
	if seen[m.FullName()] {
		return
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		visit(f)
		if f.Message() != nil {
			fields(f.Message(), seen, visit)
		}
	}
}

func redacted(f protoreflect.FieldDescriptor) bool {
	o, _ := f.Options().(*descriptorpb.FieldOptions)
	return o.GetDebugRedact()
}

func holdsText(f protoreflect.FieldDescriptor) bool {
	return (f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind) && !f.ContainingMessage().IsMapEntry()
}

func looksSecret(f protoreflect.FieldDescriptor) bool {
	return secretToo[f.FullName()] || holdsText(f) && secretName.MatchString(string(f.Name())) && !notSecret[f.FullName()]
}

func TestNoReplyHoldsARefreshTokenOrAClientSecret(t *testing.T) {
	tokens := 0
	eachService(t, func(m protoreflect.MethodDescriptor) {
		fields(m.Output(), map[protoreflect.FullName]bool{}, func(f protoreflect.FieldDescriptor) {
			looks := looksSecret(f)
			switch {
			case f.FullName() == accessToken:
				tokens++
			case f.FullName() == consentLink && m.Name() == "BeginConsent":
			case looks || redacted(f):
				t.Errorf("the reply of %s can hold the secret %s", m.FullName(), f.FullName())
			}
		})
		for _, holder := range []string{"GetToken", "Subscribe", "ReportRejected"} {
			if string(m.Name()) == holder {
				return
			}
		}
		fields(m.Output(), map[protoreflect.FullName]bool{}, func(f protoreflect.FieldDescriptor) {
			if f.FullName() == accessToken {
				t.Errorf("the reply of %s can hold an access token", m.FullName())
			}
		})
	})
	if tokens != 3 {
		t.Errorf("got %d methods that reply access tokens, want 3", tokens)
	}
}

func TestEverySecretFieldIsMarked(t *testing.T) {
	marked := map[protoreflect.FullName]bool{}
	mark := func(f protoreflect.FieldDescriptor) {
		looks := looksSecret(f)
		if looks != redacted(f) {
			t.Errorf("%s: got debug_redact=%v, want %v", f.FullName(), redacted(f), looks)
		}
		if redacted(f) {
			marked[f.FullName()] = true
		}
	}
	eachService(t, func(m protoreflect.MethodDescriptor) {
		fields(m.Input(), map[protoreflect.FullName]bool{}, mark)
		fields(m.Output(), map[protoreflect.FullName]bool{}, mark)
	})
	for _, name := range []protoreflect.FullName{accessToken, "tokenbroker.v1.CreateCredentialRequest.refresh_token",
		"tokenbroker.v1.ImportRefreshTokenRequest.refresh_token", "tokenbroker.v1.CreateOAuthClientRequest.client_secret",
		"tokenbroker.v1.AddClientSecretRequest.client_secret"} {
		if !marked[name] {
			t.Errorf("%s is not marked debug_redact", name)
		}
	}
}

func TestTheFieldThatNamesACredentialIsCredential(t *testing.T) {
	eachService(t, func(m protoreflect.MethodDescriptor) {
		service, takes := string(m.Parent().Name()), m.Input().Fields()
		one := service == "CredentialService" && m.Name() != "ListCredentials" || service == "TokenService" && m.Name() != "Subscribe"
		if f := takes.ByName("credential"); one && (f == nil || f.Kind() != protoreflect.StringKind || f.Number() != 1) {
			t.Errorf("%s does not name its credential by string credential = 1", m.FullName())
		}
		if f := takes.ByName("oauth_client"); service == "OAuthClientService" && m.Name() != "ListOAuthClients" && (f == nil || f.Number() != 1) {
			t.Errorf("%s does not name its OAuth client by string oauth_client = 1", m.FullName())
		}
		check := func(f protoreflect.FieldDescriptor) {
			name := string(f.Name())
			if holdsText(f) && (name == "name" || name == "id" || strings.Contains(name, "credential") && name != "credential") {
				t.Errorf("%s: a credential is named by a field credential, nothing else", f.FullName())
			}
		}
		fields(m.Input(), map[protoreflect.FullName]bool{}, check)
		fields(m.Output(), map[protoreflect.FullName]bool{}, check)
	})
	if f := (&tokenbrokerv1.Selector{}).ProtoReflect().Descriptor().Fields().ByName("credential"); f == nil || f.Number() != 1 {
		t.Error("Selector does not name its credential by string credential = 1")
	}
}
