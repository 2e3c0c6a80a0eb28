package server

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker/audit"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func recordToProto(e audit.Entry) *tokenbrokerv1.AuditRecord {
	r := &tokenbrokerv1.AuditRecord{
		Seq: e.Seq, Time: timeToProto(e.Time), Kind: string(e.Kind), RequestId: e.RequestID,
		Identity: e.Identity, Peer: e.Peer, Certificate: e.CertFingerprint, CertificateSerial: e.CertSerial,
		Action: e.Action, Credential: e.Credential, OauthClient: e.OAuthClient,
		ScopesAsked: e.ScopesAsked, ScopesGranted: e.ScopesGranted, Subject: e.Subject, Audience: e.Audience,
		Policy: e.PolicyRevision, Rule: e.Rule, Mode: e.Mode, Decision: string(e.Decision), Reason: e.Reason, Code: e.Code,
		Provider: e.Provider, Generation: uint64(e.Generation), Serial: e.Serial, Streams: e.Streams, Count: e.Count,
		ExpireTime: timeToProto(e.Expiry), TokenMac: e.TokenMAC,
	}
	if e.Latency > 0 {
		r.Latency = durationpb.New(e.Latency)
	}
	return r
}
