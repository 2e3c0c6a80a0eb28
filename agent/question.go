package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/client"
)

// The actions that local jobs take, in the words of the broker's policy.
const (
	actionGet       = "token.get"
	actionSubscribe = "token.subscribe"
	actionReport    = "token.report"
)

const maxValidity = 24 * time.Hour

// question is what a local job asks, whichever protocol it speaks.
type question struct {
	peer              Peer
	credential        string
	scopes            []string
	subject, audience string
	least             time.Duration // for which the token has to be valid yet

	began time.Time
	id    string // of its records
}

// check refuses what no broker would take.
func (q *question) check() error {
	for field, err := range map[string]error{
		"credential": tokenbroker.ValidateName(q.credential),
		"scopes":     tokenbroker.ValidateScopes(q.scopes),
		"subject":    tokenbroker.ValidateSubject(q.subject),
		"audience":   tokenbroker.ValidateAudience(q.audience),
	} {
		if err != nil {
			return tokenbroker.Invalid(field, err)
		}
	}
	if q.least < 0 || q.least > maxValidity {
		return tokenbroker.Invalid("minValidity", errors.New("must be from 0s to 86400s"))
	}
	return nil
}

// options are the question in the words of package client.
func (q *question) options() []client.Option {
	return client.Wanted(q.scopes, q.subject, q.audience, q.least)
}

// record begins the record of a question.
func (q *question) record(action string, d decision) audit.Record {
	r := audit.Record{Kind: audit.KindCall, RequestID: q.id, Identity: d.identity, Peer: q.peer.place(), Action: action,
		Credential: q.credential, ScopesAsked: q.scopes, Subject: q.subject, Audience: q.audience, Rule: d.rule, Decision: audit.Allow}
	if !d.allowed {
		r.Decision, r.Reason = audit.Deny, "no_rule"
	}
	return r
}

// errNoRule is what a caller without a rule is told: the same as of a credential that does not exist.
var errNoRule = fmt.Errorf("agent: %w", tokenbroker.ErrNotFound)

// errStranger is errNoRule for a user of whom no rule speaks, whatever he asks for: it tells of no credential.
var errStranger = &unserved{errNoRule, "no rule of the agent on this host (agent.yaml) is for this user"}

// token answers a question for a token: by the rules, from the client, and with a record before anybody sees it.
func (a *Agent) token(ctx context.Context, q question) (tokenbroker.Token, error) {
	if err := cmp.Or(q.check(), a.hurried(q.peer.UID)); err != nil {
		return tokenbroker.Token{}, err
	}
	d := a.rules.Load().decide(q.peer, q.credential)
	if !d.allowed {
		return tokenbroker.Token{}, a.denied(ctx, q, q.record(actionGet, d))
	}
	release, err := a.claim(&q)
	if err != nil {
		return tokenbroker.Token{}, a.told(ctx, q, q.record(actionGet, d), nil, err)
	}
	tok, err := a.fetch(ctx, q)
	release(err == nil)
	return tok, a.told(ctx, q, q.record(actionGet, d), &tok, err)
}

// report passes on that a resource server refused a token.
func (a *Agent) report(ctx context.Context, q question, generation tokenbroker.Generation, status int, code string) (tokenbroker.Token, time.Duration, error) {
	if err := cmp.Or(q.check(), checkReport(generation, status, code), a.hurried(q.peer.UID)); err != nil {
		return tokenbroker.Token{}, 0, err
	}
	d := a.rules.Load().decide(q.peer, q.credential)
	if !d.allowed {
		return tokenbroker.Token{}, 0, a.denied(ctx, q, q.record(actionReport, d))
	}
	if err := a.handed.check(&q, generation); err != nil {
		return tokenbroker.Token{}, 0, a.told(ctx, q, q.record(actionReport, d), nil, err)
	}
	tok, wait, err := a.cfg.Client.ReportRejected(ctx, q.credential, tokenbroker.Token{Generation: generation}, status, append(q.options(), client.ErrorCode(code))...)
	err = a.explained(err, false, reportLater)
	return tok, wait, a.told(ctx, q, q.record(actionReport, d), &tok, err)
}

func checkReport(generation tokenbroker.Generation, status int, code string) error {
	switch {
	case generation == 0:
		return tokenbroker.Invalid("generation", errors.New("is missing: which token was refused"))
	case status < 400 || status > 599:
		return tokenbroker.Invalid("httpStatus", errors.New("must be from 400 to 599"))
	case len(code) > 64 || !plain(code):
		return tokenbroker.Invalid("errorCode", errors.New("must be at most 64 characters of [A-Za-z0-9_.-]"))
	}
	return nil
}

// plain reports whether a text is of letters, digits and "_.-".
func plain(s string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-') {
			return false
		}
	}
	return true
}

// told completes the record of an answer and writes it. The error is the answer's own, or that of the record: then the token stays here.
func (a *Agent) told(ctx context.Context, q question, r audit.Record, tok *tokenbroker.Token, err error) error {
	r.Code, r.Latency = codeOf(err), time.Since(q.began)
	if err == nil {
		r.Generation, r.ScopesGranted, r.Expiry = tok.Generation, tok.Scopes, tok.Expiry
	}
	if recordErr := a.record(ctx, r); recordErr != nil && err == nil {
		*tok = tokenbroker.Token{}
		return recordErr
	}
	if err == nil {
		a.handed.note(&q, tok.Generation)
	}
	return err
}

// denied records that there is no rule, unless that happened too often of late, and is the error for the caller.
func (a *Agent) denied(ctx context.Context, q question, r audit.Record) error {
	passed, ok := a.denials.take(q.peer.UID)
	if !ok {
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "denied calls of this user", RetryAfter: time.Second}
	}
	r.Code, r.Latency = codeOf(errNoRule), time.Since(q.began)
	if passed > 0 {
		r.Count = passed + 1
	}
	_ = a.record(ctx, r) // a denial gives nothing away, recorded or not
	if !a.rules.Load().knows(q.peer) {
		return errStranger
	}
	return errNoRule
}
