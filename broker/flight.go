package broker

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// errGone ends a flight whose variant went out of memory: evicted, reconfigured or deleted. Who waited looks it up again.
var errGone = errors.New("the variant is not in memory any more")

// want says what a flight is to bring, beyond what its variant has.
type want struct {
	after  tokenbroker.Generation // a token of a later generation will do
	due    bool                   // the schedule asks: only if a refresh is still due
	report bool                   // a worker had a 401: an uncertain refresh token may be tried
	longer bool                   // a caller wants a token that lives longer than the valid one
	force  bool                   // an operator asks: remembered refusals do not count
}

// join waits for the variant's flight, which it begins if there is none. A flight that others began may have wanted less;
// then join begins one of its own, as it does if the result lost to a new grant. An exchange that went well meanwhile is as good
// as an own one, whatever it brought.
func (b *Broker) join(ctx context.Context, v *variant, w want) (*Snapshot, error) {
	v.waiters.Add(1)
	defer v.waiters.Add(-1)
	came := time.Now()
	for range joinTries {
		s, mine, err := b.joinOnce(ctx, v, w)
		switch {
		case errors.Is(err, tokenbroker.ErrSuperseded):
		case err != nil && (mine || !w.force && !w.report):
			return nil, err
		case err == nil && (mine || s.Order.Generation > w.after || v.enough(w, s, came)):
			return s, nil
		}
	}
	return nil, problem(tokenbroker.ErrBackoff, "superseded", retryBase)
}

// enough reports whether a flight of one's own could bring no more than what another's brought: an exchange went well since one
// came, or the next is not to be caused yet.
func (v *variant) enough(w want, s *Snapshot, came time.Time) bool {
	now := time.Now()
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	return !v.fetched.Before(came) || s.usable(now) && v.tooSoon(w, s, now)
}

// joinOnce also says whether it began the flight, or could not wait for its end.
func (b *Broker) joinOnce(ctx context.Context, v *variant, w want) (*Snapshot, bool, error) {
	stalled := v.e.stalling()
	select {
	case <-stalled:
		return nil, true, problem(tokenbroker.ErrStoreUnavailable, "store_unavailable", retryBase)
	default:
	}
	began := false
	ch := b.flights.DoChan(v.id, func() (any, error) {
		began = true
		return b.fly(v, w)
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, began, r.Err
		}
		s, err := v.newest(r.Val.(*Snapshot))
		return s, began, err
	case <-stalled:
		return nil, true, problem(tokenbroker.ErrStoreUnavailable, "store_unavailable", retryBase)
	case <-ctx.Done():
		return nil, true, ctx.Err()
	}
}

// newest is what to give of what a flight brought, or why that is not to be given any more. The flight may have looked before the credential was
// switched off, revoked or given another account, and the caller have come after that.
func (v *variant) newest(brought *Snapshot) (*Snapshot, error) {
	s := v.snap.Load()
	if s == brought || s.Token != nil {
		return s, nil
	}
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if err := v.blocked(want{}, time.Now()); err != nil {
		return nil, err
	}
	return nil, tokenbroker.ErrSuperseded
}

// fly is one flight of one variant, on the broker's own context. Whoever wants a token of the variant meanwhile waits for it.
func (b *Broker) fly(v *variant, w want) (any, error) {
	if !b.enter() {
		return nil, tokenbroker.ErrDraining
	}
	defer b.running.Done()
	s, err := b.refresh(b.work, v, w)
	if err != nil && b.work.Err() != nil {
		return nil, tokenbroker.ErrDraining
	}
	if err != nil {
		b.failed(v, err)
	}
	b.flights.Forget(v.id) // what the schedule begins from here on must not end up in this flight
	b.reschedule(v)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// refresh looks again whether there is something to do, in the order in which others may have done it meanwhile, and does it.
func (b *Broker) refresh(ctx context.Context, v *variant, w want) (*Snapshot, error) {
	if s, err := v.settled(w); s != nil || err != nil {
		return s, err
	}
	subject, err := b.subjectToken(ctx, v.e)
	if err != nil {
		return nil, err
	}
	if v.e.shares() {
		if err := take(ctx, v.e.spend); err != nil {
			return nil, err
		}
		defer func() { <-v.e.spend }()
	}
	t, err := b.gate(v.e).pass(ctx, v)
	if err != nil {
		return nil, err
	}
	if s, err := v.settled(w); s != nil || err != nil {
		t.unused()
		return s, err
	}
	return b.exchange(ctx, b.newTry(v, w, subject), t)
}

func take(ctx context.Context, lock chan struct{}) error {
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// shares reports whether exchanges of the credential's variants share a refresh token.
func (e *entry) shares() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cred.Grant.Refreshes()
}

// settled returns what a flight need not fly for: a token that came meanwhile, or a reason not to try.
func (v *variant) settled(w want) (*Snapshot, error) {
	now := time.Now()
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if v.e.gone || v.gone {
		return nil, errGone
	}
	s := v.snap.Load()
	if s.Order.Generation > w.after && s.usable(now) {
		return s, nil
	}
	if s.usable(now) && v.tooSoon(w, s, now) {
		return s, nil
	}
	if err := v.blocked(w, now); err != nil {
		return nil, err
	}
	if w.due && s.usable(now) && v.refreshDue(now).After(now) {
		return s, nil
	}
	return nil, nil
}

// tooSoon reports whether a caller who has a valid token may not cause another exchange yet. Whoever wants one has asked before;
// since then others may have had theirs. e.mu is held.
func (v *variant) tooSoon(w want, s *Snapshot, now time.Time) bool {
	return w.report && v.reportWait(s, now) > 0 || w.longer && v.worthwhile(s, now) != nil
}

// blocked says why no exchange is to be tried now. e.mu is held.
func (v *variant) blocked(w want, now time.Time) error {
	e := v.e
	switch {
	case e.cred.Disabled:
		return tokenbroker.ErrDisabled
	case e.grant.State == tokenbroker.StateQuarantined:
		return tokenbroker.ErrQuarantined
	case e.lacking(now) != "":
		return e.why(tokenbroker.ErrReauthorize, e.lacking(now), "", 0)
	case w.force:
		return nil
	case e.grant.State == tokenbroker.StateReauthorize:
		return e.why(tokenbroker.ErrReauthorize, e.grant.Code, e.grant.Cause, 0)
	case e.grant.State == tokenbroker.StateMisconfigured && now.Before(e.probeAt):
		return e.why(tokenbroker.ErrMisconfigured, e.grant.Code, e.grant.Cause, 0)
	case now.Before(v.refusedTill):
		return e.why(v.refusedAs, v.code, v.cause, 0)
	case e.grant.Intent != nil && !(w.report && e.grant.Intent.Sends <= 1) && now.Before(e.recoverAt(now)):
		return problem(tokenbroker.ErrUncertain, "", e.recoverAt(now).Sub(now))
	case now.Before(v.next):
		return v.inBackoff(now)
	}
	return nil
}

// inBackoff is the answer while the next try is not due: the last error, with the time that is left. e.mu is held.
func (v *variant) inBackoff(now time.Time) error {
	if isOfSource(v.lastErr) {
		return v.lastErr // it is there that something has to be done
	}
	for _, kept := range []error{tokenbroker.ErrStoreUnavailable, tokenbroker.ErrAuditUnavailable, tokenbroker.ErrThrottled} {
		if errors.Is(v.lastErr, kept) {
			return problem(kept, v.code, v.next.Sub(now))
		}
	}
	return problem(tokenbroker.ErrBackoff, v.code, v.next.Sub(now))
}

// recoverAt is when a refresh token whose answer was lost may be sent again: at once where the provider forgives that, else
// just before the last valid token of the credential ends. It speaks for all variants, since they share the refresh token.
// e.mu is held.
func (e *entry) recoverAt(now time.Time) time.Time {
	at := later(now, e.recoverNext)
	if e.grant.Intent == nil || inGrace(e.traits, e.grant.Intent.Begun, now) {
		return at
	}
	for _, v := range e.variants {
		if v.token.usable(now) {
			at = later(at, v.token.end(now).Add(-min(probeMargin, v.token.Life()/10)))
		}
	}
	return later(at, e.storedEnd.Add(-maxGuard-probeMargin))
}

// failed makes sure that a failed flight is not flown again at once, whatever it failed of.
func (b *Broker) failed(v *variant, err error) {
	var settled *failedExchange
	if errors.As(err, &settled) || errors.Is(err, errGone) || errors.Is(err, tokenbroker.ErrDraining) {
		return
	}
	now := time.Now()
	v.e.mu.Lock()
	defer b.tell(v)
	defer v.e.mu.Unlock()
	if now.Before(v.next) || v.blocked(want{}, now) != nil {
		return
	}
	if errors.Is(err, tokenbroker.ErrSuperseded) { // a new grant is there: try that, but not for ever
		if v.lost++; v.lost < joinTries {
			return
		}
	}
	code, cause := codeOf(err), tokenbroker.Cause("")
	if code == circuitOpen && v.code != "" {
		code, cause = v.code, v.cause // what the provider said last tells more than that it is left alone for a while
	}
	v.strike(err, code, cause, retryAfterOf(err), now)
	b.review(v, now)
}

// strike notes a failure and when to try again. e.mu is held.
func (v *variant) strike(err error, code string, cause tokenbroker.Cause, retryAfter time.Duration, now time.Time) {
	most := retryCap
	if _, ok := errors.AsType[*localError](err); ok {
		most = localCap
	}
	v.next = now.Add(backoff(v.failures, most, retryAfter, draw()))
	v.failures++
	v.code, v.cause, v.lastErr = code, cause, err
}

// localError is why an attempt ended before anything was sent: our own store or log did not take what has to be there first.
type localError struct{ error }

func (e *localError) Unwrap() error { return e.error }

func asLocal(err error) error {
	if errors.Is(err, tokenbroker.ErrStoreUnavailable) || errors.Is(err, tokenbroker.ErrAuditUnavailable) {
		return &localError{err}
	}
	return err
}

func problem(sentinel error, code string, retryAfter time.Duration) error {
	p := &tokenbroker.Problem{Err: sentinel, RetryAfter: retryAfter}
	if code != "" {
		p.Detail, p.Metadata = code, map[string]string{"code": code}
	}
	return p
}

// circuitOpen is the code of an exchange that was not tried, as too many have failed at its provider.
const circuitOpen = "circuit_open"

func codeOf(err error) string {
	var f *tokenbroker.Failure
	switch {
	case errors.As(err, &f):
		return f.Code
	case isOfSource(err):
		return "source_failed"
	case errors.Is(err, tokenbroker.ErrStoreUnavailable):
		return "store_unavailable"
	case errors.Is(err, tokenbroker.ErrSuperseded):
		return "superseded"
	case isTampered(err):
		return "tampered"
	case errors.Is(err, tokenbroker.ErrAuditUnavailable):
		return "audit_unavailable"
	case errors.Is(err, tokenbroker.ErrThrottled):
		return "throttled"
	case errors.Is(err, tokenbroker.ErrClientNotFound):
		return "oauth_client_missing"
	case errors.Is(err, tokenbroker.ErrUpstream):
		return circuitOpen
	}
	return "internal"
}

func retryAfterOf(err error) time.Duration {
	if p, ok := errors.AsType[*tokenbroker.Problem](err); ok {
		return p.RetryAfter
	}
	return 0
}

func isOfSource(err error) bool {
	_, ok := errors.AsType[*sourceError](err)
	return ok
}

func isTampered(err error) bool { return errors.Is(err, tokenbroker.ErrTampered) }
