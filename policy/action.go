package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Action is what an identity wants to do: a family and a verb, e.g. "token.get". A rule may name a family, e.g. "token.*".
type Action string

// The actions. Health is open to every authenticated identity and so has none.
const (
	TokenGet       Action = "token.get"
	TokenSubscribe Action = "token.subscribe"
	TokenReport    Action = "token.report"

	CredentialCreate  Action = "credential.create"
	CredentialGet     Action = "credential.get"
	CredentialList    Action = "credential.list"
	CredentialUpdate  Action = "credential.update"
	CredentialDelete  Action = "credential.delete"
	CredentialDisable Action = "credential.disable"
	CredentialEnable  Action = "credential.enable"
	CredentialRefresh Action = "credential.refresh"
	CredentialImport  Action = "credential.import"
	CredentialRevoke  Action = "credential.revoke"
	CredentialCheck   Action = "credential.check"
	CredentialUsers   Action = "credential.users"

	// Consents are judged by the credential that they are for.
	ConsentBegin    Action = "consent.begin"
	ConsentComplete Action = "consent.complete"
	ConsentGet      Action = "consent.get"
	ConsentList     Action = "consent.list"
	ConsentAccept   Action = "consent.accept"
	ConsentCancel   Action = "consent.cancel"

	OAuthClientCreate       Action = "oauth_client.create"
	OAuthClientGet          Action = "oauth_client.get"
	OAuthClientList         Action = "oauth_client.list"
	OAuthClientUpdate       Action = "oauth_client.update"
	OAuthClientDelete       Action = "oauth_client.delete"
	OAuthClientAddSecret    Action = "oauth_client.add_secret"
	OAuthClientRetireSecret Action = "oauth_client.retire_secret"

	ProviderRead Action = "provider.read"

	// Records are judged by the credential or OAuth client that they are about.
	AuditRead Action = "audit.read"
	AuditFind Action = "audit.find"

	PolicyExplain Action = "policy.explain"
	PolicyLint    Action = "policy.lint"

	ReflectionUse Action = "reflection.use"
)

// The families of actions.
const (
	familyToken       = "token"
	familyCredential  = "credential"
	familyConsent     = "consent"
	familyOAuthClient = "oauth_client"
	familyAudit       = "audit"
	familyPolicy      = "policy"
)

// Actions returns all known actions, by family.
func Actions() []Action {
	return []Action{
		TokenGet, TokenSubscribe, TokenReport,
		CredentialCreate, CredentialGet, CredentialList, CredentialUpdate, CredentialDelete, CredentialDisable,
		CredentialEnable, CredentialRefresh, CredentialImport, CredentialRevoke, CredentialCheck, CredentialUsers,
		ConsentBegin, ConsentComplete, ConsentGet, ConsentList, ConsentAccept, ConsentCancel,
		OAuthClientCreate, OAuthClientGet, OAuthClientList, OAuthClientUpdate, OAuthClientDelete, OAuthClientAddSecret,
		OAuthClientRetireSecret,
		ProviderRead,
		AuditRead, AuditFind,
		PolicyExplain, PolicyLint,
		ReflectionUse,
	}
}

// family returns the part before the first dot.
func (a Action) family() string {
	f, _, _ := strings.Cut(string(a), ".")
	return f
}

// expandAction returns the actions that an item of a rule names.
func expandAction(item string) ([]Action, error) {
	all := Actions()
	if slices.Contains(all, Action(item)) {
		return []Action{Action(item)}, nil
	}
	family, whole := strings.CutSuffix(item, ".*")
	found := slices.DeleteFunc(slices.Clone(all), func(a Action) bool { return !whole || a.family() != family })
	if len(found) == 0 {
		return nil, fmt.Errorf("unknown action %q; known are %s, and a family as in \"token.*\"", item, joinActions(all))
	}
	return found, nil
}

func joinActions(all []Action) string {
	s := make([]string, len(all))
	for i, a := range all {
		s[i] = string(a)
	}
	return strings.Join(s, ", ")
}
