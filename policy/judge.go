package policy

import "cmp"

// hurdle is a check that a request failed. They are taken in this order, so a higher one means that the rule came further.
type hurdle int

const (
	hurdleCredential hurdle = iota
	hurdleOAuthClient
	hurdleScope
	hurdleSubject
	hurdleAudience
	hurdleNone
)

// reason returns the word for a hurdle.
func (h hurdle) reason() Reason {
	return [...]Reason{ReasonCredential, ReasonOAuthClient, ReasonScope, ReasonSubject, ReasonAudience, ReasonAllowed}[h]
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
	case (q.Credential != "" || family == familyToken || family == familyCredential || family == familyConsent) && !covers(r.credentials, q.Credential):
		return verdict{hurdle: hurdleCredential}
	case (q.OAuthClient != "" || family == familyOAuthClient) && !covers(r.oauthClients, q.OAuthClient):
		return verdict{hurdle: hurdleOAuthClient}
	}
	covered, denied := r.scoped(q.Scopes)
	switch {
	case covered < len(q.Scopes), len(q.Scopes) == 0 && family == familyToken && !open(r.scopes):
		return verdict{hurdleScope, covered, denied}
	case q.Subject != "" && !covers(r.subjects, q.Subject):
		return verdict{hurdleSubject, covered, ""}
	case q.Audience != "" && !covers(r.audiences, q.Audience):
		return verdict{hurdleAudience, covered, ""}
	}
	return verdict{hurdle: hurdleNone}
}

// scoped counts the scopes that the rule covers, and names the first that it does not.
func (r *rule) scoped(scopes []string) (covered int, denied string) {
	for _, s := range scopes {
		switch {
		case covers(r.scopes, s):
			covered++
		case denied == "":
			denied = s
		}
	}
	return covered, denied
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

// open reports whether the patterns take any scope whatever.
func open(patterns []pattern) bool {
	for i := range patterns {
		if patterns[i].text == "**" {
			return true
		}
	}
	return false
}
