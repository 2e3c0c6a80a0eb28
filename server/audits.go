package server

import (
	"context"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// Trail is the audit trail, as the AuditService reads it. It is safe for concurrent use.
type Trail interface {
	// Backward visits the records before a number, the newest first, until visit wants no more; 0 = from the newest on.
	Backward(ctx context.Context, before uint64, visit func(audit.Entry) (more bool)) error
	// Follow visits each record after a number as it is written, until ctx ends or visit returns an error, which it returns.
	Follow(ctx context.Context, after uint64, visit func(audit.Entry) error) error
}

// What one caller may cost.
const (
	scansAtOnce = 4               // who reads the trail, of all identities
	scansOfOne  = 2               // of one identity, so that it leaves the others a turn
	pageRecords = 50_000          // read for one page
	pageTime    = 3 * time.Second // spent on one page
	recentMost  = 1000            // records that a tail begins with
	rightsEvery = 250 * time.Millisecond
	findTime    = 10 * time.Second // spent on one search
	findStreams = 100_000          // streams that a search keeps in mind
	findHolders = 1000             // that a search returns
)

// auditService implements the RPCs on the audit trail.
type auditService struct {
	tokenbrokerv1.UnimplementedAuditServiceServer
	s     *Server
	trail Trail
	scans chan struct{} // holds a value for each who reads the trail
	turns *streams      // readings by each identity, those that wait for their turn included
	tails *streams
	pages *pageSeal
}

func newAuditService(s *Server) tokenbrokerv1.AuditServiceServer {
	if s.cfg.Trail == nil {
		return tokenbrokerv1.UnimplementedAuditServiceServer{}
	}
	return &auditService{s: s, trail: s.cfg.Trail, scans: make(chan struct{}, scansAtOnce), turns: newStreams(scansOfOne, nil), tails: newStreams(s.cfg.Limits.Tails, nil), pages: newPageSeal()}
}

// scan reads the trail backwards, for no longer than is given, when it is the caller's turn. ended says that there was no more to read.
func (a *auditService) scan(ctx context.Context, before uint64, most time.Duration, visit func(audit.Entry) bool) (ended bool, err error) {
	who := callOf(ctx).Identity
	if err := a.turns.reserve(who); err != nil {
		return false, &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "searches of this identity at once", RetryAfter: retrySoon}
	}
	defer a.turns.release(who)
	select {
	case a.scans <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-a.scans }()
	end := time.Now().Add(most)
	if d, ok := ctx.Deadline(); ok && d.Add(-time.Second).Before(end) {
		end = d.Add(-time.Second) // the answer takes time, too
	}
	ended = true
	err = a.trail.Backward(ctx, before, func(e audit.Entry) bool {
		ended = visit(e) && time.Now().Before(end)
		return ended
	})
	return ended, err
}

// ListAuditRecords implements tokenbrokerv1.AuditServiceServer.
func (a *auditService) ListAuditRecords(ctx context.Context, r *tokenbrokerv1.ListAuditRecordsRequest) (*tokenbrokerv1.ListAuditRecordsResponse, error) {
	limit, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	before, err := a.pages.after(callOf(ctx).Identity, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	f, err := filterOf(r.GetFilter())
	if err != nil {
		return nil, err
	}
	p := &recordPage{filter: f, limit: limit, reader: a.s.readerOf(callOf(ctx))}
	ended, err := a.scan(ctx, before, pageTime, p.visit)
	if err != nil {
		return nil, err
	}
	return p.response(ended, func(after uint64) string { return a.pages.token(callOf(ctx).Identity, after) }), nil
}

// recordPage is a page in the making.
type recordPage struct {
	filter *filter
	reader *reader
	limit  int

	records []*tokenbrokerv1.AuditRecord
	read    int
	last    audit.Entry // the last one read
	over    bool        // what is older is not wanted
}

// visit takes up a record, and says whether the page has room for more.
func (p *recordPage) visit(e audit.Entry) (more bool) {
	if p.filter.over(e) {
		p.over = true
		return false
	}
	p.last = e
	p.read++
	if p.filter.match(&e.Record) && p.reader.may(&e.Record) {
		p.records = append(p.records, recordToProto(e))
	}
	return len(p.records) < p.limit && p.read < pageRecords
}

// response is the page. One that the trail had no more for ends the list; one that ended for another reason goes on, also if it is empty.
func (p *recordPage) response(ended bool, token func(after uint64) string) *tokenbrokerv1.ListAuditRecordsResponse {
	resp := &tokenbrokerv1.ListAuditRecordsResponse{Records: p.records}
	switch {
	case p.over, p.read == 0:
	case ended:
		resp.OldestTime = timeToProto(p.last.Time)
	default:
		resp.NextPageToken = token(p.last.Seq)
	}
	return resp
}
