package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// auditSlack is how far records may be out of the order of time: a clock was set back.
const auditSlack = 10 * time.Minute

// filter picks records. Nil patterns, empty texts and zero values pick all.
type filter struct {
	start, end                      time.Time
	identity, credential, client    *policy.Pattern
	action                          string // or the start of those of a family, up to and with the dot
	family                          bool
	kinds                           []string
	decision, rule, requestID, code string
	generation                      uint64
}

// filterOf reads a filter.
func filterOf(f *tokenbrokerv1.AuditFilter) (*filter, error) {
	out := &filter{kinds: f.GetKinds(), decision: f.GetDecision(), rule: f.GetRule(), requestID: f.GetRequestId(), code: f.GetCode(),
		generation: f.GetGeneration()}
	out.action, out.family = strings.CutSuffix(f.GetAction(), "*")
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	out.start, err = optionalTime("filter.startTime", f.GetStartTime())
	note(err)
	out.end, err = optionalTime("filter.endTime", f.GetEndTime())
	note(err)
	for _, p := range []struct {
		field, text string
		into        **policy.Pattern
	}{{"identity", f.GetIdentity(), &out.identity}, {"credential", f.GetCredential(), &out.credential},
		{"oauthClient", f.GetOauthClient(), &out.client}} {
		note(patternOf("filter."+p.field, p.text, p.into))
	}
	if out.family && !strings.HasSuffix(out.action, ".") || strings.Contains(out.action, "*") {
		note(tokenbroker.Invalid("filter.action", errors.New(`give an action, as "token.get", or a family, as "token.*"`)))
	}
	if !slices.Contains([]string{"", string(audit.Allow), string(audit.Deny)}, out.decision) {
		note(tokenbroker.Invalid("filter.decision", errors.New(`give "allow" or "deny"`)))
	}
	if len(out.kinds) > maxKinds {
		note(tokenbroker.Invalid("filter.kinds", fmt.Errorf("at most %d kinds may be given", maxKinds)))
	}
	return out, errors.Join(errs...)
}

const maxKinds = 32 // more than there are

func patternOf(field, text string, into **policy.Pattern) error {
	if text == "" {
		return nil
	}
	p, err := policy.ParsePattern(text)
	if err != nil {
		return tokenbroker.Invalid(field, err)
	}
	*into = &p
	return nil
}

// over reports whether a record is so old that what is older need not be read.
func (f *filter) over(e audit.Entry) bool {
	return !f.start.IsZero() && e.Time.Before(f.start.Add(-auditSlack))
}

// match reports whether a record fits.
func (f *filter) match(r *audit.Record) bool {
	return f.when(r.Time) && f.who(r) &&
		fits(f.decision, string(r.Decision)) && fits(f.rule, r.Rule) && fits(f.requestID, r.RequestID) && fits(f.code, r.Code) &&
		(len(f.kinds) == 0 || slices.Contains(f.kinds, string(r.Kind))) && (f.generation == 0 || f.generation == uint64(r.Generation))
}

func (f *filter) when(t time.Time) bool {
	return (f.start.IsZero() || !t.Before(f.start)) && (f.end.IsZero() || t.Before(f.end))
}

// who matches identity and action, and what it is about.
func (f *filter) who(r *audit.Record) bool {
	if f.family && !strings.HasPrefix(r.Action, f.action) || !f.family && !fits(f.action, r.Action) {
		return false
	}
	return matches(f.identity, r.Identity) && matches(f.credential, r.Credential) && matches(f.client, r.OAuthClient)
}

func fits(want, got string) bool { return want == "" || want == got }

func matches(p *policy.Pattern, s string) bool { return p == nil || p.Match(s) }

// reader is a caller of the AuditService: which records it may see, by the policy that is in force. It is for one goroutine.
type reader struct {
	s        *Server
	identity string
	action   policy.Action

	policy *policy.Policy
	all    bool              // it may see what is about no credential and no OAuth client
	known  map[audience]bool // decisions so far
}

// audience is what a record is about.
type audience struct{ credential, client string }

// rightsCached bounds the decisions that a reader keeps in mind.
const rightsCached = 10_000

func (s *Server) readerOf(c *call) *reader {
	return &reader{s: s, identity: c.Identity, action: c.need.action}
}

// may judges a record. One of a credential is judged by that; one of an OAuth client alone by the client.
func (r *reader) may(rec *audit.Record) bool {
	if now := r.s.cfg.Policy(); now != r.policy || len(r.known) > rightsCached {
		r.policy, r.known = now, map[audience]bool{}
		r.all = now.GrantsAll(r.identity, r.action)
	}
	about := audience{rec.Credential, rec.OAuthClient}
	if about == (audience{}) {
		return r.all
	}
	if about.credential != "" {
		about.client = ""
	}
	allowed, known := r.known[about]
	if !known {
		allowed = r.policy.Decide(policy.Request{Identity: r.identity, Action: r.action, Credential: about.credential,
			OAuthClient: about.client}).Allowed
		r.known[about] = allowed
	}
	return allowed
}

// barred is an error if no rule gives the caller the action any more.
func (r *reader) barred() error {
	if r.s.cfg.Policy().Grants(r.identity, r.action) {
		return nil
	}
	return &tokenbroker.Problem{Err: tokenbroker.ErrNotAllowed, Detail: "no rule gives this identity " + string(r.action) + " any more"}
}
