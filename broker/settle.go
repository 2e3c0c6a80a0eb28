package broker

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// judgement is what a failure means for a grant and for the variant that it struck.
type judgement struct {
	state       tokenbroker.State // of the grant from now on
	code        string
	strikes     int
	clearIntent bool
	variantOnly bool  // only this variant's input was refused
	answer      error // sentinel for the callers
}

// judge decides what a failure means. It is invariant 4: only a refused grant, on the refresh token that is still the stored
// one, after enough strikes in a row, asks for a person.
func judge(g tokenbroker.Grant, grant tokenbroker.GrantType, t tokenbroker.Traits, f *tokenbroker.Failure, rotating bool) judgement {
	j := judgement{state: settledState(g), code: g.Code, strikes: g.Strikes, clearIntent: true, answer: tokenbroker.ErrUpstream}
	switch f.Class {
	case tokenbroker.ClassDeadGrant:
		if grant != tokenbroker.GrantRefreshToken {
			return j.misconfigured(f)
		}
		if j.strikes++; j.strikes >= strikes(t) {
			j.state, j.code, j.answer = tokenbroker.StateReauthorize, f.Code, tokenbroker.ErrReauthorize
		}
	case tokenbroker.ClassConfiguration, tokenbroker.ClassClockSkew:
		if f.OfVariant() {
			j.variantOnly, j.answer = true, tokenbroker.ErrScopeNotAllowed
			return j
		}
		return j.misconfigured(f)
	case tokenbroker.ClassThrottled:
		j.answer = tokenbroker.ErrThrottled
	case tokenbroker.ClassTransient:
	case tokenbroker.ClassAmbiguous:
		if rotating {
			j.clearIntent = false
			j.state, j.code, j.answer = tokenbroker.StateUncertain, f.Code, tokenbroker.ErrUncertain
		}
	}
	return j
}

func (j judgement) misconfigured(f *tokenbroker.Failure) judgement {
	j.state, j.code, j.answer = tokenbroker.StateMisconfigured, f.Code, tokenbroker.ErrMisconfigured
	return j
}

// settledState is the grant's state once its intent is cleared.
func settledState(g tokenbroker.Grant) tokenbroker.State {
	switch g.State {
	case tokenbroker.StatePending, tokenbroker.StateReauthorize, tokenbroker.StateMisconfigured, tokenbroker.StateQuarantined:
		return g.State
	case tokenbroker.StateReady, tokenbroker.StateDegraded, tokenbroker.StateDisabled, tokenbroker.StateUncertain:
	}
	return tokenbroker.StateReady
}

// settle records a failure and returns what the callers are told.
func (b *Broker) settle(ctx context.Context, t try, failure error) error {
	f := asFailure(failure)
	now, e := time.Now(), t.v.e
	e.mu.Lock()
	j := judge(e.grant, t.cred.Grant, e.traits, f, t.rotating)
	e.mu.Unlock()
	grant, err := b.cfg.Store.Abort(ctx, t.verdict(j, now))
	if errors.Is(err, tokenbroker.ErrSuperseded) {
		b.reread(ctx, e) // somebody consented meanwhile: the failure speaks of a refresh token that is not ours any more
		return err
	}
	e.mu.Lock()
	if err == nil {
		e.keep(grant)
	}
	b.apply(t.v, j, f, now)
	b.view(t.v, now)
	after := t.v.next.Sub(now)
	e.mu.Unlock()
	b.publishAll(e, t.v)
	return tell(j, f, max(after, 0))
}

func (t try) verdict(j judgement, now time.Time) tokenbroker.Verdict {
	v := tokenbroker.Verdict{Credential: t.cred.Name, UID: t.cred.UID, Serial: t.serial, ClearIntent: j.clearIntent,
		State: j.state, Code: j.code, Strikes: j.strikes, Time: now}
	if t.rotating {
		v.Attempt = t.attempt
	}
	return v
}

// apply puts a judgement into the variant and its credential. e.mu is held.
func (b *Broker) apply(v *variant, j judgement, f *tokenbroker.Failure, now time.Time) {
	e := v.e
	e.grant.State, e.grant.Code, e.grant.Strikes = j.state, j.code, j.strikes
	if j.clearIntent {
		e.grant.Intent = nil
	}
	v.strike(f, f.Code, f.RetryAfter, now)
	switch {
	case j.variantOnly:
		v.refusedTill = now.Add(variantMemo)
		v.next = v.refusedTill
	case j.state == tokenbroker.StateMisconfigured:
		e.probes++
		e.probeAt = now.Add(probeDelay(e.probes, draw()))
	case j.state == tokenbroker.StateUncertain && e.grant.Intent != nil && e.grant.Intent.Sends <= 1:
		v.next = now // recoverAt says when
	}
}

func asFailure(err error) *tokenbroker.Failure {
	var f *tokenbroker.Failure
	if errors.As(err, &f) {
		return f
	}
	return &tokenbroker.Failure{Class: tokenbroker.ClassAmbiguous, Code: "internal", Sent: true}
}

// failedExchange is a Problem that still holds the failure, for those who look.
type failedExchange struct {
	problem error
	failure *tokenbroker.Failure
}

func (e *failedExchange) Error() string   { return e.problem.Error() }
func (e *failedExchange) Unwrap() []error { return []error{e.problem, e.failure} }

// tell makes the callers' error.
func tell(j judgement, f *tokenbroker.Failure, after time.Duration) error {
	if j.answer == tokenbroker.ErrReauthorize || j.answer == tokenbroker.ErrMisconfigured || j.variantOnly {
		after = 0
	}
	return &failedExchange{problem: problem(j.answer, f.Code, after), failure: f}
}
