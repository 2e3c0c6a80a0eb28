package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// tail is one open TailAuditRecords.
type tail struct {
	a      *auditService
	call   *call
	filter *filter
	reader *reader // of the goroutine that sends
	out    grpc.ServerStreamingServer[tokenbrokerv1.TailAuditRecordsResponse]
	slow   *time.Timer
	cut    chan struct{} // gets a value when the reader was too slow
}

// TailAuditRecords implements tokenbrokerv1.AuditServiceServer.
func (a *auditService) TailAuditRecords(r *tokenbrokerv1.TailAuditRecordsRequest, out grpc.ServerStreamingServer[tokenbrokerv1.TailAuditRecordsResponse]) (err error) {
	f, err := tailFilter(r)
	if err != nil {
		return err
	}
	ctx, c := out.Context(), callOf(out.Context())
	if err := a.tails.reserve(c.Identity); err != nil {
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: fmt.Sprintf("tails of this identity: %d at once", a.s.cfg.Limits.Tails), RetryAfter: retrySoon}
	}
	defer a.tails.release(c.Identity)
	rec := c.record
	rec.Kind, rec.Decision, rec.Code, rec.Latency = audit.KindStreamOpen, audit.Allow, codeOf(nil), time.Since(c.began)
	if err := a.s.record(ctx, rec); err != nil {
		return err
	}
	c.opened = true
	defer func() { a.s.recordEnd(ctx, c, nil, err) }()
	t := &tail{a: a, call: c, filter: f, reader: a.s.readerOf(c), out: out, cut: make(chan struct{}, 1)}
	t.slow = time.AfterFunc(time.Hour, t.tooSlow)
	t.slow.Stop()
	defer t.slow.Stop()
	return t.serve(ctx, int(r.GetRecent()))
}

func tailFilter(r *tokenbrokerv1.TailAuditRecordsRequest) (*filter, error) {
	switch f := r.GetFilter(); {
	case r.GetRecent() < 0 || r.GetRecent() > recentMost:
		return nil, tokenbroker.Invalid("recent", fmt.Errorf("%d is not from 0 to %d", r.GetRecent(), recentMost))
	case f.GetStartTime() != nil:
		return nil, tokenbroker.Invalid("filter.startTime", errors.New("is of no use to a tail: say with recent how many records it begins with"))
	case f.GetEndTime() != nil:
		return nil, tokenbroker.Invalid("filter.endTime", errors.New("is of no use to a tail"))
	}
	return filterOf(r.GetFilter())
}

// serve sends until something ends the tail, and says what did. A reader that was too slow loses its connection, too, which may be seen first.
func (t *tail) serve(ctx context.Context, recent int) error {
	err := t.await(ctx, recent)
	select {
	case <-t.cut:
		return errSlowReader
	default:
		return err
	}
}

// await sends until something ends the tail. A send that blocks must not keep it from ending, so another goroutine sends; it ends with the
// stream, and the server waits for it.
func (t *tail) await(ctx context.Context, recent int) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	t.a.s.lingering.Go(func() { done <- t.sendSafely(ctx, recent) })
	expiry := time.NewTimer(time.Until(t.call.NotAfter))
	defer expiry.Stop()
	rights := time.NewTicker(rightsEvery)
	defer rights.Stop()
	judge := t.a.s.readerOf(t.call)
	for {
		select {
		case err := <-done:
			return err
		case <-t.cut:
			return errSlowReader
		case <-rights.C:
			if err := judge.barred(); err != nil {
				return err
			}
		case <-t.a.s.ending:
			return tokenbroker.ErrDraining
		case <-expiry.C:
			return errCertificateExpired
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tooSlow ends a tail whose reader is too slow, and its connection, since what was sent already would keep that from ending.
func (t *tail) tooSlow() {
	select {
	case t.cut <- struct{}{}:
	default:
	}
	_ = t.call.cut()
}

// sendSafely is send. A panic ends the stream alone: the interceptors, which recover those of handlers, are on another goroutine.
func (t *tail) sendSafely(ctx context.Context, recent int) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = t.a.s.caught(ctx, p)
		}
	}()
	return t.send(ctx, recent)
}

// send sends the last records that fit, and then those that come.
func (t *tail) send(ctx context.Context, recent int) error {
	if err := t.out.SendHeader(nil); err != nil { // it is open, whenever the first record comes
		return err
	}
	var last []audit.Entry
	var newest uint64
	read := 0
	_, err := t.a.scan(ctx, 0, pageTime, func(e audit.Entry) bool {
		newest = max(newest, e.Seq)
		if read++; len(last) < recent && t.wants(e) {
			last = append(last, e)
		}
		return len(last) < recent && read < pageRecords
	})
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(last) {
		if err := t.one(e); err != nil {
			return err
		}
	}
	return t.a.trail.Follow(ctx, newest, func(e audit.Entry) error {
		if !t.wants(e) {
			return nil
		}
		return t.one(e)
	})
}

// wants reports whether a record is for the tail. Those of tails are not: one would make the other.
func (t *tail) wants(e audit.Entry) bool {
	ofTail := e.Action == string(policy.AuditRead) && (e.Kind == audit.KindStreamOpen || e.Kind == audit.KindStreamClose)
	return !ofTail && t.filter.match(&e.Record) && t.reader.may(&e.Record)
}

func (t *tail) one(e audit.Entry) error {
	t.slow.Reset(t.a.s.cfg.Limits.SlowReader)
	defer t.slow.Stop()
	return t.out.Send(&tokenbrokerv1.TailAuditRecordsResponse{Record: recordToProto(e)})
}
