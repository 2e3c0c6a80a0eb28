package server

import (
	"cmp"
	"context"
	"errors"
	"net"
	"regexp"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// search looks through the trail, from the newest record on, for who was given a token.
type search struct {
	macs   []string
	reader *reader

	found   audit.Entry // the newest record that names the token; the zero value if none does
	birth   string      // the attempt that brought it
	born    bool        // the record of what led to it was seen: nobody was given it before
	holders map[holder]*tokenbrokerv1.TokenHolder
	streams map[delivery]*span // to whom it went, until the record says whose stream that is
	more    bool               // holders or streams that were left out
	oldest  time.Time
}

// holder is what tells holders apart. A connection's port does not.
type holder struct{ identity, certificate, host, way, rule string }

// delivery is what tells streams apart. Their ids begin anew with each start of the broker.
type delivery struct {
	stream     uint64
	credential string
}

// span is how often, and from when to when.
type span struct {
	first, last time.Time
	count       uint64
}

// FindToken implements tokenbrokerv1.AuditServiceServer.
func (a *auditService) FindToken(ctx context.Context, r *tokenbrokerv1.FindTokenRequest) (*tokenbrokerv1.FindTokenResponse, error) {
	macs, err := a.macs(r)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	f := &search{macs: macs, reader: a.s.readerOf(c), holders: map[holder]*tokenbrokerv1.TokenHolder{}, streams: map[delivery]*span{}}
	ended, err := a.scan(ctx, 0, findTime, f.visit)
	if err != nil {
		return nil, err
	}
	f.lost()
	f.more = f.more || !ended && !f.over()
	c.record.Credential, c.record.Generation, c.record.Count = f.found.Credential, f.found.Generation, uint64(len(f.holders))
	resp := f.response()
	if !resp.GetKnown() && c.policy.GrantsAll(c.Identity, policy.AuditFind) { // whoever may not see it all must not have tokens hashed
		resp.TokenMac = macs[0]
	}
	return resp, nil
}

var macForm = regexp.MustCompile(`^[A-Za-z0-9_.:=+/-]{8,256}$`)

// macs is what records may name the token by.
func (a *auditService) macs(r *tokenbrokerv1.FindTokenRequest) ([]string, error) {
	token, mac := r.GetAccessToken(), r.GetTokenMac()
	switch {
	case (token == "") == (mac == ""):
		return nil, tokenbroker.Invalid("accessToken", errors.New("exactly one of accessToken and tokenMac is required"))
	case len(token) > tokenbroker.MaxSecretBytes:
		return nil, tokenbroker.Invalid("accessToken", errors.New("is longer than any token that the broker holds"))
	case mac != "" && !macForm.MatchString(mac):
		return nil, tokenbroker.Invalid("tokenMac", errors.New("is no hash; give the token_mac of a record"))
	case mac != "":
		return []string{mac}, nil
	case a.s.cfg.MACs == nil:
		return nil, tokenbroker.Invalid("accessToken", errors.New("can't be looked up: this broker has no keys for that"))
	}
	return a.s.cfg.MACs(token), nil
}

// visit takes up a record, and says whether older ones may tell more.
func (f *search) visit(e audit.Entry) (more bool) {
	f.oldest = e.Time
	switch {
	case e.Kind == audit.KindSystem && e.Action == "start":
		f.lost()
	case e.Kind == audit.KindExchangeIntent && f.birth != "" && e.RequestID == f.birth:
		f.born = true
	case e.Kind == audit.KindStreamOpen && e.Action == string(policy.TokenSubscribe):
		f.opened(e)
	case e.TokenMAC != "" && slices.Contains(f.macs, e.TokenMAC) && f.reader.may(&e.Record):
		f.named(e)
	}
	return !f.over()
}

// over reports whether nothing older can tell more.
func (f *search) over() bool { return f.born && len(f.streams) == 0 }

// named takes up a record that names the token.
func (f *search) named(e audit.Entry) {
	if f.found.Seq == 0 {
		f.found = e
	}
	once := span{first: e.Time, last: e.Time, count: 1}
	switch {
	case e.Kind == audit.KindDeliver:
		for _, id := range e.Streams {
			f.delivered(delivery{id, e.Credential}, once)
		}
	case e.Kind == audit.KindExchangeResult && e.Reason == ReasonUnchanged:
	case e.Kind == audit.KindExchangeResult: // it may have been handed out just before this record, but not before the intent
		f.birth, f.born = e.RequestID, e.RequestID == ""
	case e.Kind == audit.KindCall && e.Action == string(policy.TokenGet):
		f.given(e, "get", once)
	case e.Kind == audit.KindCall && e.Action == string(policy.TokenReport):
		f.given(e, "report", once)
	}
}

// ReasonUnchanged is the reason of a record of an exchange that brought the token that was there already.
const ReasonUnchanged = "unchanged"

func (f *search) delivered(d delivery, once span) {
	s := f.streams[d]
	switch {
	case s != nil:
		s.add(once)
	case len(f.streams) < findStreams:
		f.streams[d] = &once
	default:
		f.more = true
	}
}

func (s *span) add(o span) {
	s.count += o.count
	if o.first.Before(s.first) {
		s.first = o.first
	}
	if o.last.After(s.last) {
		s.last = o.last
	}
}

// opened says whose the stream is that deliveries went to.
func (f *search) opened(e audit.Entry) {
	for _, id := range e.Streams {
		d := delivery{id, e.Credential}
		if s := f.streams[d]; s != nil {
			delete(f.streams, d)
			f.given(e, "stream", *s)
		}
	}
}

// lost gives up on streams whose opening is not in the trail.
func (f *search) lost() {
	for _, s := range f.streams {
		f.given(audit.Entry{}, "stream", *s)
	}
	clear(f.streams)
}

// given notes a holder.
func (f *search) given(e audit.Entry, way string, s span) {
	host, _, err := net.SplitHostPort(e.Peer)
	if err != nil {
		host = e.Peer
	}
	key := holder{e.Identity, e.CertFingerprint, host, way, e.Rule}
	h := f.holders[key]
	switch {
	case h == nil && len(f.holders) >= findHolders:
		f.more = true
		return
	case h == nil:
		h = &tokenbrokerv1.TokenHolder{Identity: e.Identity, Certificate: e.CertFingerprint, Peer: e.Peer, Way: way, Rule: e.Rule,
			FirstTime: timeToProto(s.first), LastTime: timeToProto(s.last)}
		f.holders[key] = h
	}
	all := span{h.GetFirstTime().AsTime(), h.GetLastTime().AsTime(), h.GetCount()}
	all.add(s)
	h.FirstTime, h.LastTime, h.Count = timeToProto(all.first), timeToProto(all.last), all.count
}

func (f *search) response() *tokenbrokerv1.FindTokenResponse {
	resp := &tokenbrokerv1.FindTokenResponse{OldestTime: timeToProto(f.oldest), Truncated: f.more}
	if f.found.Seq == 0 {
		return resp
	}
	resp.Known, resp.Credential, resp.Generation = true, f.found.Credential, uint64(f.found.Generation)
	resp.ExpireTime, resp.TokenMac = timeToProto(f.found.Expiry), f.found.TokenMAC
	for _, h := range f.holders {
		resp.Holders = append(resp.Holders, h)
	}
	slices.SortFunc(resp.Holders, func(a, b *tokenbrokerv1.TokenHolder) int {
		return cmp.Or(a.GetFirstTime().AsTime().Compare(b.GetFirstTime().AsTime()), cmp.Compare(a.GetIdentity(), b.GetIdentity()),
			cmp.Compare(a.GetWay(), b.GetWay()), cmp.Compare(a.GetCertificate(), b.GetCertificate()))
	})
	return resp
}
