package server

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func credentialToProto(st broker.Status) *tokenbrokerv1.Credential {
	c := st.Credential
	var grant tokenbrokerv1.GrantType
	for wire, g := range grants {
		if g == c.Grant {
			grant = wire
		}
	}
	return &tokenbrokerv1.Credential{
		Credential: c.Name,
		Spec: &tokenbrokerv1.CredentialSpec{Provider: c.Provider, OauthClient: c.Client, GrantType: grant, Scopes: c.Scopes,
			Subject: c.Subject, Audience: c.Audience, Resources: c.Resources, Parameters: c.Parameters, Source: c.Source,
			Labels: c.Labels, Owner: c.Owner, ExtraScopes: extraToProto(c.Extra)},
		Status:     statusToProto(st),
		Etag:       etag(c.Version),
		Uid:        c.UID,
		CreateTime: timeToProto(c.Created),
		UpdateTime: timeToProto(c.Updated),
	}
}

func statusToProto(st broker.Status) *tokenbrokerv1.CredentialStatus {
	s := st.Snapshot
	out := &tokenbrokerv1.CredentialStatus{
		State: stateToProto(s.State), RecoveryAction: recoveryToProto(s.Recovery), Code: s.Code, StateTime: timeToProto(s.Since),
		Disabled: st.Credential.Disabled, HasRefreshToken: st.Grant.Lives() && st.Grant.Holds == tokenbroker.HoldsRefreshToken, Serial: st.Grant.Serial,
		RefreshTokenExerciseTime: timeToProto(st.Grant.Exercised), RefreshTokenExpireTime: timeToProto(st.GrantEnd),
		RefreshTime: timeToProto(st.RefreshAt), LastUseTime: timeToProto(st.LastUse),
		SubscriberCount: clampInt32(st.Subscribers), VariantCount: clampInt32(st.Variants),
		Cause: string(s.Cause), Advice: st.Advice, Account: st.Grant.Account, ConsentTime: timeToProto(st.Grant.Consented),
		GrantedScopes: st.Grant.Granted, MissingScopes: st.Missing, RotationSeen: st.Rotated, RevocationPending: st.Grant.Revoking != nil,
	}
	if st.Grant.Lives() {
		out.Holds = string(st.Grant.Holds)
	}
	if st.Skew != 0 {
		out.ClockSkew = durationpb.New(st.Skew)
	}
	if s.Token != nil {
		out.Generation, out.ExpireTime = uint64(s.Token.Generation), timeToProto(s.Token.Expiry)
		out.ExpireTimeEstimated = s.Token.ExpiryEstimated
	}
	return out
}
