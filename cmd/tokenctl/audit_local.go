package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// localTrail reads the records of a trail on this host, as an agent keeps one: the newest first, from the file and those that were rotated.
func localTrail(ctx context.Context, path string, f *tokenbrokerv1.AuditFilter, limit int) (*tokenbrokerv1.ListAuditRecordsResponse, error) {
	pick, err := newLocalFilter(f)
	if err != nil {
		return nil, err
	}
	if err := isFile(path); err != nil {
		return nil, unreadable("--file", err)
	}
	all := &tokenbrokerv1.ListAuditRecordsResponse{}
	var skipped error
	found := false
	trail := &audit.Trail{Path: path, Skipped: func(s audit.Skip) { skipped = s.Err }}
	err = trail.Backward(ctx, 0, func(e audit.Entry) bool {
		found = true
		if r := localRecord(&e); pick.match(r) {
			all.Records = append(all.Records, r)
		}
		return len(all.GetRecords()) < limit
	})
	if err == nil && skipped == nil && !found {
		err = errors.New("no line of it is a record")
	}
	if err = errors.Join(err, skipped); err != nil {
		return nil, unreadable("--file", err)
	}
	return all, nil
}

// localFilter picks records as the broker does.
type localFilter struct {
	*tokenbrokerv1.AuditFilter
	identity, credential, client *policy.Pattern // nil = any
}

func newLocalFilter(f *tokenbrokerv1.AuditFilter) (*localFilter, error) {
	l := &localFilter{AuditFilter: f}
	for _, p := range []struct {
		flag, text string
		into       **policy.Pattern
	}{{"identity", f.GetIdentity(), &l.identity}, {"credential", f.GetCredential(), &l.credential}, {"client", f.GetOauthClient(), &l.client}} {
		if p.text == "" {
			continue
		}
		found, err := policy.ParsePattern(p.text)
		if err != nil {
			return nil, usagef("--%s: %v", p.flag, err)
		}
		*p.into = &found
	}
	return l, nil
}

func (l *localFilter) match(r *tokenbrokerv1.AuditRecord) bool {
	at := r.GetTime().AsTime()
	if l.GetStartTime() != nil && at.Before(l.GetStartTime().AsTime()) || l.GetEndTime() != nil && !at.Before(l.GetEndTime().AsTime()) {
		return false
	}
	for _, p := range [][2]string{{l.GetDecision(), r.GetDecision()}, {l.GetRule(), r.GetRule()}, {l.GetRequestId(), r.GetRequestId()}, {l.GetCode(), r.GetCode()}} {
		if p[0] != "" && p[0] != p[1] {
			return false
		}
	}
	for _, p := range []struct {
		pattern *policy.Pattern
		text    string
	}{{l.identity, r.GetIdentity()}, {l.credential, r.GetCredential()}, {l.client, r.GetOauthClient()}} {
		if p.pattern != nil && !p.pattern.Match(p.text) {
			return false
		}
	}
	return l.action(r.GetAction()) && (len(l.GetKinds()) == 0 || slices.Contains(l.GetKinds(), r.GetKind())) &&
		(l.GetGeneration() == 0 || l.GetGeneration() == r.GetGeneration())
}

// action reports whether an action is the one that is wanted, or of the family.
func (l *localFilter) action(got string) bool {
	want, family := strings.CutSuffix(l.GetAction(), "*")
	return want == "" || got == want || family && strings.HasPrefix(got, want)
}

// localRecord is a line of a trail in the words of the broker's reply.
func localRecord(e *audit.Entry) *tokenbrokerv1.AuditRecord {
	r := &tokenbrokerv1.AuditRecord{Seq: e.Seq, Time: timestamppb.New(e.Time), Kind: string(e.Kind), Action: e.Action, Identity: e.Identity, Peer: e.Peer,
		Credential: e.Credential, Generation: uint64(e.Generation), Decision: string(e.Decision), Reason: e.Reason, Code: e.Code, Rule: e.Rule, Mode: e.Mode,
		RequestId: e.RequestID, Certificate: e.CertFingerprint, CertificateSerial: e.CertSerial, OauthClient: e.OAuthClient, Provider: e.Provider,
		Policy: e.PolicyRevision, ScopesAsked: e.ScopesAsked, ScopesGranted: e.ScopesGranted, Subject: e.Subject, Audience: e.Audience, Serial: e.Serial,
		TokenMac: e.TokenMAC, Streams: e.Streams, Count: e.Count}
	if e.Latency > 0 {
		r.Latency = durationpb.New(e.Latency.Truncate(time.Microsecond))
	}
	if !e.Expiry.IsZero() {
		r.ExpireTime = timestamppb.New(e.Expiry)
	}
	return r
}

// isFile refuses what is no file to read a trail from.
func isFile(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("it is no file")}
	}
	return err
}
