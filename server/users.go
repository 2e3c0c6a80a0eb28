package server

import (
	"context"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// tokenActions are what a worker does with a credential.
var tokenActions = []policy.Action{policy.TokenGet, policy.TokenSubscribe, policy.TokenReport}

// ListCredentialUsers implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) ListCredentialUsers(ctx context.Context, r *tokenbrokerv1.ListCredentialUsersRequest) (*tokenbrokerv1.ListCredentialUsersResponse, error) {
	name, now, p := r.GetCredential(), time.Now(), callOf(ctx).policy
	own, err := c.b.Own(ctx, name)
	if err != nil {
		return nil, err
	}
	subscribed, err := c.b.Subscribers(ctx, name)
	if err != nil {
		return nil, err
	}
	resp := &tokenbrokerv1.ListCredentialUsersResponse{May: grantees(p, name, now), UsageSince: timeToProto(c.usage.Since()), PolicyRevision: p.Revision()}
	allowed := func(identity string, a policy.Action) bool {
		return allowsSome(p, policy.Request{Identity: identity, Action: a, Credential: name, Own: own.Scopes, Time: now})
	}
	for _, u := range c.usage.Users(name) {
		resp.Did = append(resp.Did, &tokenbrokerv1.CredentialUse{Identity: u.Identity, FirstTime: timeToProto(u.First), LastTime: timeToProto(u.Last), Rule: u.Rule,
			Allowed:    slices.ContainsFunc(tokenActions, func(a policy.Action) bool { return allowed(u.Identity, a) }),
			Subscribed: slices.Contains(subscribed, u.Identity)})
	}
	return resp, nil
}

// allowsSome reports whether a policy allows a token with the credential's own scopes, or with one of them: whoever asks for less than all
// uses the credential, too.
func allowsSome(p *policy.Policy, r policy.Request) bool {
	if r.Scopes = r.Own; p.Decide(r).Allowed {
		return true
	}
	return slices.ContainsFunc(r.Own, func(scope string) bool {
		r.Scopes = []string{scope}
		return p.Decide(r).Allowed
	})
}

// grantees are the rules that let somebody use a credential.
func grantees(p *policy.Policy, credential string, now time.Time) []*tokenbrokerv1.CredentialGrantee {
	var all []*tokenbrokerv1.CredentialGrantee
	for _, g := range p.Grantees(credential, now) {
		var actions []string
		for _, a := range g.Actions {
			if slices.Contains(tokenActions, a) {
				actions = append(actions, string(a))
			}
		}
		if len(actions) > 0 {
			all = append(all, &tokenbrokerv1.CredentialGrantee{Rule: g.Rule, Identities: g.Identities, Actions: actions, Scopes: g.Scopes,
				Subjects: g.Subjects, Audiences: g.Audiences, AuditModeExpireTime: timeToProto(g.Until)})
		}
	}
	return all
}
