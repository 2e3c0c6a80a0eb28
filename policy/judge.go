package policy

import (
	"cmp"
	"slices"
	"strings"
)

// hurdle is a check that a request failed. They are taken in this order, so a higher one means that the rule came further.
type hurdle int

const (
	hurdleCredential hurdle = iota
	hurdleOAuthClient
	hurdleScope
	hurdleSubject
	hurdleAudience
	hurdleExpired
	hurdleAudit // none, of a rule in audit mode: an enforced rule that allows goes first
	hurdleNone
)

// reason returns the word for a hurdle.
func (h hurdle) reason() Reason {
	return [...]Reason{ReasonCredential, ReasonOAuthClient, ReasonScope, ReasonSubject, ReasonAudience, ReasonExpired, ReasonAllowed,
		ReasonAllowed}[h]
}

// verdict is how far one rule came.
type verdict struct {
	hurdle  hurdle
	covered int    // scopes covered
	scope   string // the first scope that is not
}

// closer reports whether v came further than w.
func (v verdict) closer(w verdict) bool {
	return cmp.Or(cmp.Compare(v.hurdle, w.hurdle), cmp.Compare(v.covered, w.covered)) > 0
}

// judge takes a request whose identity and action the rule has through the other hurdles.
// The family of the action comes along, as many rules are asked about one request.
func (r *rule) judge(q *Request, family string) verdict {
	switch {
	case (q.Credential != "" || family == familyToken || family == familyCredential || family == familyConsent) && !named(r.credentials, q.Credential):
		return verdict{hurdle: hurdleCredential}
	case (q.OAuthClient != "" || family == familyOAuthClient) && !named(r.oauthClients, q.OAuthClient):
		return verdict{hurdle: hurdleOAuthClient}
	}
	ok, covered, denied := r.scoped(q, family)
	switch {
	case !ok:
		return verdict{hurdleScope, covered, denied}
	case q.Subject != "" && !covers(r.subjects, q.Subject):
		return verdict{hurdleSubject, covered, ""}
	case q.Audience != "" && !covers(r.audiences, q.Audience):
		return verdict{hurdleAudience, covered, ""}
	case r.mode != ModeAudit:
		return verdict{hurdle: hurdleNone}
	case q.Time.IsZero() || !q.Time.Before(r.until):
		return verdict{hurdle: hurdleExpired}
	}
	return verdict{hurdle: hurdleAudit}
}

// scoped reports whether the rule covers all scopes, counts those that it does, and names the first that it does not. A token for
// which nobody asks for scopes has the credential's own; where there are none either, the provider decides, which only a rule that takes
// any scope covers, or one that leaves them to the credential.
func (r *rule) scoped(q *Request, family string) (ok bool, covered int, denied string) {
	scopes, own := q.Scopes, family == familyToken && r.scopes == nil
	if q.AnyScope && !open(r.scopes) {
		return false, 0, ""
	}
	if family == familyToken && len(scopes) == 0 {
		scopes = q.Own
		if len(scopes) == 0 {
			return own || open(r.scopes), 0, ""
		}
	}
	for _, s := range scopes {
		switch {
		case own && s != "" && slices.Contains(q.Own, s), !own && covers(r.scopes, s):
			covered++
		case denied == "":
			denied = s
		}
	}
	return covered == len(scopes), covered, denied
}

// covers reports whether a pattern fits s. Nothing covers an empty name: it is one that somebody forgot to fill in.
func covers(patterns []pattern, s string) bool {
	if s == "" {
		return false
	}
	for i := range patterns {
		if patterns[i].match(s) {
			return true
		}
	}
	return false
}

// named is covers for a name, which is never a path that climbs.
func named(patterns []pattern, name string) bool { return covers(patterns, name) && !climbs(name) }

// climbs reports whether s has a segment "." or "..", which a pattern takes for a name like any other, and others for a way out of a folder.
// Whoever reads names and identities from the wire refuses these, and so do we.
func climbs(s string) bool {
	if !strings.Contains(s, "/.") && !strings.HasPrefix(s, ".") {
		return false
	}
	return slices.ContainsFunc(strings.Split(s, "/"), func(segment string) bool { return segment == "." || segment == ".." })
}

// open reports whether the patterns take anything whatever. Several that do so only together, as "*" and "*/**", do not count: whoever
// means all says so.
func open(patterns []pattern) bool {
	for i := range patterns {
		if patterns[i].text == "**" {
			return true
		}
	}
	return false
}
