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
	cause       tokenbroker.Cause // what is behind code
	strikes     int
	clearIntent bool
	variantOnly bool  // only this variant's input was refused
	answer      error // sentinel for the callers
}

// judge decides what a failure means. It is invariant 4: only a refused grant, on the refresh token that is still the stored
// one, after enough strikes in a row, asks for a person.
//
// A replay settles nothing but a dead grant: that the second send was not processed says nothing of the first.
func judge(g tokenbroker.Grant, t try, traits tokenbroker.Traits, f *tokenbroker.Failure) judgement {
	j := judgement{state: settledState(g), code: g.Code, cause: g.Cause, strikes: g.Strikes, clearIntent: !t.replay, answer: tokenbroker.ErrUpstream}
	if t.replay {
		j.state = tokenbroker.StateUncertain
	}
	if j.state == tokenbroker.StateReady {
		j.code, j.cause = "", ""
	}
	switch f.Class {
	case tokenbroker.ClassDeadGrant:
		if t.cred.Grant.Keeps() == tokenbroker.HoldsNothing || t.cred.Source != "" {
			return j.refused(t, f)
		}
		if j.strikes++; j.strikes >= strikes(traits) {
			j.clearIntent = true
			j.state, j.code, j.cause, j.answer = tokenbroker.StateReauthorize, f.Code, f.Cause, tokenbroker.ErrReauthorize
		}
	case tokenbroker.ClassConfiguration:
		return j.refused(t, f)
	case tokenbroker.ClassClockSkew:
		return j.misconfigured(f)
	case tokenbroker.ClassThrottled:
		j.answer = tokenbroker.ErrThrottled
	case tokenbroker.ClassTransient:
	case tokenbroker.ClassAmbiguous:
		if t.rotating {
			j.clearIntent = false
			j.state, j.code, j.cause, j.answer = tokenbroker.StateUncertain, f.Code, f.Cause, tokenbroker.ErrUncertain
		}
	}
	return j
}

// refused judges what the provider has against a request, which may be the variant's own part of it. The credential's own variant has
// none: what is refused there is what an operator configured.
func (j judgement) refused(t try, f *tokenbroker.Failure) judgement {
	switch {
	case f.OfVariant() && t.v.isOwn:
		j.variantOnly, j.answer = true, tokenbroker.ErrMisconfigured
	case f.OfVariant():
		j.variantOnly, j.answer = true, tokenbroker.ErrScopeNotAllowed
	case ofSubject(t, f):
		j.variantOnly, j.answer = true, tokenbroker.ErrMisconfigured
	default:
		return j.misconfigured(f)
	}
	return j
}

// ofSubject reports whether a failure may come of a subject that the variant chose, whom the provider does not let us act for. It says so
// of all subjects in the same words.
func ofSubject(t try, f *tokenbroker.Failure) bool {
	if t.v.v.Subject == t.cred.Subject || refusedSecret(f) {
		return false
	}
	switch f.Code {
	case "unauthorized_client", "access_denied", "invalid_grant", "admin_policy_enforced":
		return true
	}
	return false
}

func (j judgement) misconfigured(f *tokenbroker.Failure) judgement {
	j.state, j.code, j.cause, j.answer = tokenbroker.StateMisconfigured, f.Code, f.Cause, tokenbroker.ErrMisconfigured
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
	j := judge(e.grant, t, e.traits, f)
	e.mu.Unlock()
	grant, err := b.abort(ctx, t, j, now)
	if errors.Is(err, tokenbroker.ErrSuperseded) {
		b.reread(ctx, e) // somebody consented meanwhile: the failure speaks of a refresh token that is not ours any more
		return err
	}
	e.mu.Lock()
	if err == nil {
		e.keep(grant)
	}
	b.apply(t, j, f, now)
	after := t.v.next.Sub(now)
	e.mu.Unlock()
	b.publishAll(e)
	return e.tell(j, f, max(after, 0))
}

// abort makes a judgement durable, if the store can be written; if not, memory knows it. It does not end with the broker.
func (b *Broker) abort(ctx context.Context, t try, j judgement, now time.Time) (tokenbroker.Grant, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	g, err := b.cfg.Store.Abort(ctx, t.verdict(j, now))
	if err != nil && j.clearIntent {
		b.markUnspent(t)
	}
	return g, err
}

// release clears the intent of an attempt whose client secret was refused, before the next secret is tried. What the provider
// makes of the configuration is not known yet, so nothing else changes.
func (b *Broker) release(ctx context.Context, t try, failure error) error {
	e := t.v.e
	e.mu.Lock()
	j := judge(e.grant, t, e.traits, &tokenbroker.Failure{Class: tokenbroker.ClassTransient})
	e.mu.Unlock()
	g, err := b.abort(ctx, t, j, time.Now())
	if errors.Is(err, tokenbroker.ErrSuperseded) {
		b.reread(ctx, e)
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.keep(g)
	}
	return failure
}

func (t try) verdict(j judgement, now time.Time) tokenbroker.Verdict {
	v := tokenbroker.Verdict{Credential: t.cred.Name, UID: t.cred.UID, Serial: t.serial, ClearIntent: j.clearIntent,
		State: j.state, Code: j.code, Cause: j.cause, Strikes: j.strikes, Time: now}
	if t.rotating {
		v.Attempt = t.attempt
	}
	return v
}

// apply puts a judgement into the variant and its credential. e.mu is held.
func (b *Broker) apply(t try, j judgement, f *tokenbroker.Failure, now time.Time) {
	v, e := t.v, t.v.e
	v.strike(f, f.Code, f.Cause, f.RetryAfter, now)
	if e.grant.Serial != t.serial {
		return // the rest speaks of a refresh token that is not ours any more
	}
	e.grant.State, e.grant.Code, e.grant.Cause, e.grant.Strikes = j.state, j.code, j.cause, j.strikes
	switch {
	case j.clearIntent:
		e.grant.Intent = nil
	case t.intent != nil:
		e.grant.Intent = t.intent
	}
	switch {
	case j.variantOnly:
		v.refusals++
		v.refusedAs, v.refusedTill = j.answer, now.Add(memo(v.refusals, f))
		v.next = v.refusedTill
	case errors.Is(j.answer, tokenbroker.ErrMisconfigured):
		e.probes++
		e.probeAt = now.Add(probeDelay(e.probes, draw()))
	case j.clearIntent || t.intent == nil:
	case t.intent.Sends <= 1:
		v.next, e.recoverNext = now, time.Time{} // recoverAt says when
	default:
		if left := graceLeft(e.traits, t.intent.Begun, now); left > 0 { // it does not wait for us
			v.next = earlier(v.next, now.Add(max(retryBase, left/4, f.RetryAfter)))
		}
		e.recoverNext = v.next
	}
}

// memo is how long the refusal of a variant's input is remembered. Delegation takes effect up to a day after it was granted.
func memo(refusals int, f *tokenbroker.Failure) time.Duration {
	if f.OfVariant() {
		return variantMemo
	}
	return probeDelay(refusals, draw())
}

func asFailure(err error) *tokenbroker.Failure {
	if f, ok := errors.AsType[*tokenbroker.Failure](err); ok {
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
func (e *entry) tell(j judgement, f *tokenbroker.Failure, after time.Duration) error {
	if errors.Is(j.answer, tokenbroker.ErrReauthorize) || errors.Is(j.answer, tokenbroker.ErrMisconfigured) || j.variantOnly {
		after = 0
	}
	return &failedExchange{problem: e.why(j.answer, f.Code, f.Cause, after), failure: f}
}
