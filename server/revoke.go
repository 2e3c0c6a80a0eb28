package server

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// RevokeCredentials implements tokenbrokerv1.CredentialServiceServer. Each credential that is touched has a record of its own.
func (c *credentialService) RevokeCredentials(ctx context.Context, r *tokenbrokerv1.RevokeCredentialsRequest) (*tokenbrokerv1.RevokeCredentialsResponse, error) {
	caller := callOf(ctx)
	q, err := revokeQuery(r)
	if err != nil {
		return nil, err
	}
	if q.Credential != "" {
		d := caller.may(policy.Request{Credential: q.Credential})
		if !d.Allowed {
			return nil, denial(caller.need, d, true)
		}
	}
	q.Allowed = func(name string) bool { return caller.may(policy.Request{Credential: name}).Allowed }
	q.Record = func(ctx context.Context, name string) error {
		one := caller.record
		one.Kind, one.Decision, one.Credential, one.Rule = audit.KindCallIntent, audit.Allow, name, caller.may(policy.Request{Credential: name}).Rule
		return c.audit(context.WithoutCancel(ctx), one)
	}
	list, err := c.b.Revoke(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &tokenbrokerv1.RevokeCredentialsResponse{}
	for _, one := range list {
		resp.Revocations = append(resp.Revocations, &tokenbrokerv1.Revocation{Credential: one.Credential, Outcome: revokeOutcomes[one.Outcome],
			Code: one.Code, TokensLiveUntil: timeToProto(one.LiveUntil), SubscriberCount: clampInt32(one.Subscribers)})
	}
	return resp, nil
}

func revokeQuery(r *tokenbrokerv1.RevokeCredentialsRequest) (broker.RevokeQuery, error) {
	q := broker.RevokeQuery{Credential: r.GetCredential(), Client: r.GetOauthClient(), Provider: r.GetProvider(), DryRun: r.GetValidateOnly()}
	n := 0
	for _, s := range []string{q.Credential, q.Client, q.Provider} {
		if s != "" {
			n++
		}
	}
	if n != 1 {
		return q, tokenbroker.Invalid("credential", errors.New("exactly one of credential, oauthClient and provider is required"))
	}
	if q.Credential != "" {
		return q, tokenbroker.Invalid("credential", tokenbroker.ValidateName(q.Credential))
	}
	return q, nil
}

var revokeOutcomes = map[broker.RevokeOutcome]tokenbrokerv1.Revocation_Outcome{
	broker.RevokePlanned:     tokenbrokerv1.Revocation_OUTCOME_PLANNED,
	broker.RevokeDone:        tokenbrokerv1.Revocation_OUTCOME_REVOKED,
	broker.RevokeParked:      tokenbrokerv1.Revocation_OUTCOME_PARKED,
	broker.RevokeUnsupported: tokenbrokerv1.Revocation_OUTCOME_NOT_SUPPORTED,
	broker.RevokeRefused:     tokenbrokerv1.Revocation_OUTCOME_REFUSED,
}

// CheckCredential implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) CheckCredential(ctx context.Context, r *tokenbrokerv1.CheckCredentialRequest) (*tokenbrokerv1.CheckCredentialResponse, error) {
	checked, err := c.b.Check(ctx, selectionOf(r))
	if err != nil {
		return nil, err
	}
	verdict := checked.Reply
	resp := &tokenbrokerv1.CheckCredentialResponse{Credential: r.GetCredential(), Method: checkMethods[verdict.Method], Code: verdict.Code,
		Active:     verdict.Active || verdict.Method == tokenbroker.CheckNone && verdict.Code == "",
		Generation: uint64(checked.Order.Generation), ExpireTime: timeToProto(checked.Token.Expiry),
		ProviderExpireTime: timeToProto(verdict.Expiry), Scopes: verdict.Scopes, MissingScopes: checked.Missing, Audience: verdict.Audience,
		Account: verdict.Account}
	if verdict.Skew != 0 {
		resp.ClockSkew = durationpb.New(verdict.Skew)
	}
	return resp, nil
}

var checkMethods = map[tokenbroker.CheckMethod]tokenbrokerv1.CheckCredentialResponse_Method{
	tokenbroker.CheckIntrospection: tokenbrokerv1.CheckCredentialResponse_METHOD_INTROSPECTION,
	tokenbroker.CheckJWT:           tokenbrokerv1.CheckCredentialResponse_METHOD_JWT,
	tokenbroker.CheckTestCall:      tokenbrokerv1.CheckCredentialResponse_METHOD_TEST_CALL,
	tokenbroker.CheckNone:          tokenbrokerv1.CheckCredentialResponse_METHOD_NONE,
}
