package broker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Report says that a resource server refused a token.
type Report struct {
	Selection
	Generation tokenbroker.Generation
	HTTPStatus int    // 400 to 599
	Code       string // of WWW-Authenticate (RFC 6750 §3.1), optional
	Holder     string // identity that reports
}

// ReportOutcome is what a report led to.
type ReportOutcome string

// The outcomes of a report.
const (
	ReportNewer   ReportOutcome = "newer"   // there is a newer token
	ReportWait    ReportOutcome = "wait"    // a report-driven refresh is not due yet
	ReportCounted ReportOutcome = "counted" // a status that a refresh can't help
)

const unauthorized = 401 // the one HTTP status that a refresh may help

var reportCode = regexp.MustCompile(`^[A-Za-z0-9_.-]{0,64}$`)

// Check says what is malformed in a report.
func (r Report) Check() error {
	if err := r.Selection.Check(); err != nil {
		return err
	}
	switch {
	case r.Generation == 0:
		return tokenbroker.Invalid("generation", errors.New("is required: the generation of the token that was refused"))
	case r.HTTPStatus < 400 || r.HTTPStatus > 599:
		return tokenbroker.Invalid("httpStatus", fmt.Errorf("%d is not a refusal, give the resource server's status, 400 to 599", r.HTTPStatus))
	case !reportCode.MatchString(r.Code):
		return tokenbroker.Invalid("errorCode", errors.New("at most 64 characters of [A-Za-z0-9_.-] are allowed"))
	}
	return nil
}

// ReportRejected takes a worker's report and returns the current state. Only a 401 of the newest generation causes an exchange,
// at most one per floor interval, for however many report. The duration is how long to wait with ReportWait.
func (b *Broker) ReportRejected(ctx context.Context, r Report) (*Snapshot, ReportOutcome, time.Duration, error) {
	v, err := b.variant(ctx, r.Selection)
	if err != nil {
		return nil, "", 0, err
	}
	if !v.handed.has(r.Holder, r.Generation) {
		return nil, "", 0, tokenbroker.ErrNotHanded
	}
	b.touch(v, time.Now())
	s, outcome, wait, err := b.judgeReport(ctx, v, r)
	if errors.Is(err, errGone) { // reconfigured meanwhile: its token is of no use, whatever it was refused for
		outcome = ReportNewer
		s, err = b.Token(ctx, Request{Selection: r.Selection, Holder: r.Holder})
	}
	b.observeReport(v, r, outcome)
	if err == nil {
		s.of.hand(r.Holder, s, time.Now())
	}
	return s, outcome, wait, err
}

func (b *Broker) judgeReport(ctx context.Context, v *variant, r Report) (*Snapshot, ReportOutcome, time.Duration, error) {
	now := time.Now()
	s := v.snap.Load()
	switch {
	case !s.usable(now):
		// Only a 401 says something of the token, and may spend an uncertain refresh token.
		s, err := b.join(ctx, v, want{after: r.Generation, report: r.HTTPStatus == unauthorized})
		return s, ReportNewer, 0, err
	case s.Order.Generation > r.Generation:
		return s, ReportNewer, 0, nil
	case r.HTTPStatus != unauthorized:
		return s, ReportCounted, 0, nil
	}
	wait, newest := v.waitToReport(s, now)
	switch {
	case newest != s: // an exchange ended since, of which the wait speaks already
		return b.judgeReport(ctx, v, r)
	case wait > 0:
		return s, ReportWait, wait, nil
	}
	return b.refreshReported(ctx, v, s, r.Generation)
}

// waitToReport notes that the token was refused, and is reportWait, with the state that there is by then.
func (v *variant) waitToReport(s *Snapshot, now time.Time) (time.Duration, *Snapshot) {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	v.rejected = max(v.rejected, s.Order.Generation)
	return v.reportWait(s, now), v.snap.Load()
}

// reportWait is how long reports of this token lead to nothing yet. e.mu is held.
func (v *variant) reportWait(s *Snapshot, now time.Time) time.Duration {
	since := v.fetched
	if since.IsZero() { // the token is from before this process
		since = s.Token.Obtained
	}
	if since.After(now) { // the clock went back
		since = now
	}
	return since.Add(floor(v.e.traits, s.Token.Life(), v.reported)).Sub(now)
}

// refreshReported gets a newer token for all who report one generation.
func (b *Broker) refreshReported(ctx context.Context, v *variant, s *Snapshot, rejected tokenbroker.Generation) (*Snapshot, ReportOutcome, time.Duration, error) {
	newer, err := b.join(ctx, v, want{after: rejected, report: true})
	if err != nil {
		if wait := retryAfterOf(err); wait > 0 {
			return s, ReportWait, wait, nil
		}
		return nil, "", 0, err
	}
	if newer.Order.Generation > rejected {
		return newer, ReportNewer, 0, nil
	}
	wait, _ := v.waitToReport(newer, time.Now())
	return newer, ReportWait, max(0, wait), nil
}

func (b *Broker) observeReport(v *variant, r Report, outcome ReportOutcome) {
	v.e.mu.Lock()
	ev := v.event(EventReport)
	v.e.mu.Unlock()
	ev.Holder, ev.HTTPStatus, ev.Code = r.Holder, r.HTTPStatus, r.Code
	ev.Refreshed = outcome == ReportNewer
	b.observe(ev)
}
