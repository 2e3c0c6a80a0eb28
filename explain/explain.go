// Package explain says what each word means that the broker puts into an error, a status or an event, and what to do about it.
//
// There are eight kinds of words: the reason of an error (docs/errors.md), the cause that a provider's profile finds behind an error code, the
// code itself (RFC 6749 §5.2, a provider's own, or one of ours for a request that brought no reply), the state of a credential, why a
// subscription lost one, why the policy denied a request, what its lint doubts, and what is wrong with an audit trail. For each the package has one [Entry], in plain tables that tokenctl explain,
// the documentation and the consent pages share.
//
// A provider's own text is never passed on, since anything may be in it. The cause is what takes its place: a closed vocabulary, so a
// profile can't bring a word in that has no entry here. The package does nothing; it knows nothing of how errors come about.
package explain

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// Kind says where a word occurs.
type Kind string

// The kinds.
const (
	KindReason Kind = "reason" // ErrorInfo.reason of an error
	KindCause  Kind = "cause"  // what is behind an error code
	KindCode   Kind = "code"   // the error code of a token request
	KindState  Kind = "state"  // how a credential stands

	KindRemoval Kind = "removal" // why a subscription has a credential no more
	KindDenial  Kind = "denial"  // why the policy denied a request, in the audit trail and for operators
	KindFinding Kind = "finding" // what policy lint doubts
	KindFault   Kind = "fault"   // what audit verify finds wrong with a trail
)

// Entry is what there is to say of one word.
type Entry struct {
	Name     string               // the word
	Kind     Kind                 // where it occurs
	Title    string               // what happened, in a few words
	Meaning  string               // what is behind it, in a sentence or two
	Status   string               // of a reason: the gRPC code it comes with; "" = any
	Recovery tokenbroker.Recovery // who has to act
	Do       string               // what to do, in a sentence or two
	Brought  string               // the same where nobody consents to the broker, but somebody brings a {secret}; "" = Do
	Alone    string               // the same where a grant lives on its OAuth client alone; "" = Do
	Command  string               // the command that does it, {credential} and {client} standing for names; "" = none
}

// All returns every entry: reasons, removals, states, causes, codes, denials, findings, faults, each in the order in which one reads them. The caller may change what it gets.
func All() []Entry {
	return slices.Concat(reasons, removals, states, causes, providerCodes, grantCodes, consentCodes, ownCodes, denials, findings, faults)
}

// Lookup finds a word, as it is written or in any case. A code such as http_503 is found as http_5xx.
func Lookup(name string) (Entry, bool) {
	all := All()
	if status, ok := strings.CutPrefix(strings.ToLower(name), "http_"); ok && len(status) == 3 {
		name = "http_" + status[:1] + "xx"
	}
	for _, same := range []func(string) bool{
		func(s string) bool { return s == name },
		func(s string) bool { return strings.EqualFold(s, name) },
	} {
		if i := slices.IndexFunc(all, func(e Entry) bool { return same(e.Name) }); i >= 0 {
			return all[i], true
		}
	}
	return Entry{}, false
}

// Of returns what there is to say of a failure: of its cause if it has one that is known, else of its code.
func Of(cause tokenbroker.Cause, code string) (Entry, bool) {
	if cause != "" && Known(cause) {
		return Lookup(string(cause))
	}
	return Lookup(code)
}

// Known reports whether a cause is one of the vocabulary.
func Known(cause tokenbroker.Cause) bool {
	return slices.ContainsFunc(causes, func(e Entry) bool { return e.Name == string(cause) })
}

// DoFor is what to do about a credential of a grant: the way back to life depends on what it lives on. Of a grant that is not known, it is Do.
func (e Entry) DoFor(g tokenbroker.GrantType) string {
	switch {
	case g == "" || g.Consents():
		return e.Do
	case g.Keeps() == tokenbroker.HoldsNothing:
		return cmp.Or(e.Alone, e.Do)
	}
	return strings.ReplaceAll(cmp.Or(e.Brought, e.Do), "{secret}", secretOf(g.Keeps()))
}

// secretOf is what somebody brings, in words.
func secretOf(h tokenbroker.Holding) string {
	switch h {
	case tokenbroker.HoldsToken:
		return "token or API key"
	case tokenbroker.HoldsPassword:
		return "password"
	case tokenbroker.HoldsSubjectToken:
		return "subject token"
	case tokenbroker.HoldsRefreshToken, tokenbroker.HoldsNothing:
	}
	return "refresh token"
}

// Fill puts names in the places that Command leaves for them.
func (e Entry) Fill(credential, client string) string {
	return strings.NewReplacer("{credential}", credential, "{client}", client).Replace(e.Command)
}
