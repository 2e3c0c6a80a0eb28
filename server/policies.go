package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/usage"
)

// policyService implements the RPCs on the policy.
type policyService struct {
	tokenbrokerv1.UnimplementedPolicyServiceServer
	b     *broker.Broker
	usage *usage.Book
}

// Explain implements tokenbrokerv1.PolicyServiceServer.
func (p *policyService) Explain(ctx context.Context, r *tokenbrokerv1.ExplainRequest) (*tokenbrokerv1.ExplainResponse, error) {
	if err := checkExplain(r); err != nil {
		return nil, err
	}
	caller := callOf(ctx)
	caller.record.Credential, caller.record.OAuthClient = r.GetCredential(), r.GetOauthClient()
	if d := mayAsk(caller, r); !d.Allowed {
		caller.decision = d
		if r.GetCredential() == "" && r.GetOauthClient() != "" {
			return nil, tokenbroker.ErrClientNotFound
		}
		return nil, tokenbroker.ErrNotFound
	}
	q, known, err := p.question(ctx, r)
	if err != nil {
		return nil, err
	}
	q, d, refusal, err := p.judge(ctx, caller.policy, q, r)
	if err != nil {
		return nil, err
	}
	verdicts := seen(caller, caller.policy.Explain(q))
	resp := &tokenbrokerv1.ExplainResponse{Allowed: d.Allowed, Rule: d.Rule, Reason: string(d.Reason), DeniedScope: d.DeniedScope,
		PolicyRevision: caller.policy.Revision(), Scopes: q.Scopes, Advice: cmp.Or(refusal, advice(q, d, verdicts))}
	if d.Allowed {
		resp.Mode, resp.ExpireTime = modeToProto(d.Mode), timeToProto(d.Until)
	}
	if !known {
		resp.Advice += "; there is no such credential, so its own scopes are not known"
	}
	for _, v := range verdicts {
		resp.Verdicts = append(resp.Verdicts, &tokenbrokerv1.RuleVerdict{Rule: v.Rule, Reason: string(v.Reason), DeniedScope: v.DeniedScope, Mode: modeToProto(v.Mode)})
	}
	return resp, nil
}

// checkExplain says what is malformed in a question, before any look-up.
func checkExplain(r *tokenbrokerv1.ExplainRequest) error {
	switch family, _, _ := strings.Cut(r.GetAction(), "."); {
	case r.GetIdentity() == "":
		return tokenbroker.Invalid("identity", errors.New("is required: a SPIFFE ID, or dns: and a name"))
	case len(r.GetIdentity()) > 2048:
		return tokenbroker.Invalid("identity", errors.New("has more than 2048 bytes"))
	case policy.CheckIdentity(r.GetIdentity()) != nil:
		return tokenbroker.Invalid("identity", policy.CheckIdentity(r.GetIdentity()))
	case !slices.Contains(policy.Actions(), policy.Action(r.GetAction())):
		return tokenbroker.Invalid("action", fmt.Errorf("%.100q is no action; one is e.g. token.get", r.GetAction()))
	case r.GetCredential() == "" && (family == "token" || family == "credential" || family == "consent"):
		return tokenbroker.Invalid("credential", errors.New("is required for "+r.GetAction()))
	case r.GetOauthClient() == "" && family == "oauth_client":
		return tokenbroker.Invalid("oauthClient", errors.New("is required for "+r.GetAction()))
	}
	if name := r.GetOauthClient(); name != "" {
		if err := tokenbroker.ValidateName(name); err != nil {
			return tokenbroker.Invalid("oauthClient", err)
		}
	}
	sel := selectionOf(r)
	if sel.Credential == "" {
		sel.Credential = "none"
	}
	return sel.Check()
}

// mayAsk judges whether the caller may ask. A question about no credential and no OAuth client is one about all.
func mayAsk(caller *call, r *tokenbrokerv1.ExplainRequest) policy.Decision {
	if r.GetCredential() == "" && r.GetOauthClient() == "" {
		if !caller.policy.GrantsAll(caller.Identity, policy.PolicyExplain) {
			return policy.Decision{Reason: policy.ReasonCredential}
		}
		return caller.may(policy.Request{Credential: anything()})
	}
	return caller.may(policy.Request{Credential: r.GetCredential(), OAuthClient: r.GetOauthClient()})
}

// seen leaves out rules about other credentials than the one asked about, unless the caller may ask about all: their names may tell of what
// is none of its business.
func seen(caller *call, verdicts []policy.Verdict) []policy.Verdict {
	if caller.policy.GrantsAll(caller.Identity, policy.PolicyExplain) {
		return verdicts
	}
	return slices.DeleteFunc(verdicts, func(v policy.Verdict) bool {
		return v.Reason == policy.ReasonCredential || v.Reason == policy.ReasonOAuthClient
	})
}

// anything is a name that nobody has. Of patterns for all names it is covered, and by chance of others: it decides nothing alone.
func anything() string { return strings.ToLower(rand.Text() + "/" + rand.Text()) }

// question is a request as the policy judges it; known says that there is such a credential, or that it is about none.
func (p *policyService) question(ctx context.Context, r *tokenbrokerv1.ExplainRequest) (q policy.Request, known bool, err error) {
	q = policy.Request{Credential: r.GetCredential(), Scopes: r.GetScopes(), Subject: r.GetSubject(), Audience: r.GetAudience()}
	known = true
	if a := policy.Action(r.GetAction()); slices.Contains(tokenActions, a) || a == policy.CredentialCheck {
		sel := selectionOf(r)
		v, err := p.b.Resolve(ctx, sel)
		switch {
		case errors.Is(err, tokenbroker.ErrNotFound):
			known = false
		case err != nil:
			return q, true, err
		default:
			if q, err = policyRequest(ctx, p.b, sel, v); err != nil {
				return q, true, err
			}
		}
	}
	q.Identity, q.Action, q.OAuthClient, q.Time = r.GetIdentity(), policy.Action(r.GetAction()), r.GetOauthClient(), time.Now()
	return q, known, nil
}

// judge decides on a question, and then on the present token, if the provider gave it other scopes than were asked for: what the policy
// allows is refused if the token has more. It returns what was judged last, and what the caller would be told then.
func (p *policyService) judge(ctx context.Context, now *policy.Policy, q policy.Request, r *tokenbrokerv1.ExplainRequest) (policy.Request, policy.Decision, string, error) {
	asked := now.Decide(q)
	if !asked.Allowed || !slices.Contains(tokenActions, q.Action) {
		return q, asked, "", nil
	}
	if err := p.b.Offers(ctx, selectionOf(r)); errors.Is(err, tokenbroker.ErrScopeNotAllowed) || errors.Is(err, tokenbroker.ErrScopeNotGranted) {
		return q, asked, fmt.Sprintf("rule %q allows it, but this credential gives it to nobody: %v", asked.Rule, err), nil
	}
	granted, err := p.granted(ctx, selectionOf(r))
	if err != nil || granted == nil {
		return q, asked, "", err
	}
	judged := q
	d, err := ceiling(ctx, p.b, q, granted, asked, func(r policy.Request) policy.Decision {
		judged = r
		return now.Decide(r)
	})
	if !errors.Is(err, tokenbroker.ErrScopesTooWide) {
		return q, asked, "", err
	}
	return judged, d, fmt.Sprintf("rule %q allows what is asked, but the present token has more and is refused with GRANTED_SCOPES_TOO_WIDE: %s", asked.Rule, problemOf(err).Detail), nil
}

// granted are the scopes of the present token of a selection, if they are others than were asked for. Of a variant other than the
// credential's own it is not known.
func (p *policyService) granted(ctx context.Context, sel broker.Selection) ([]string, error) {
	st, err := p.b.Credential(ctx, sel.Credential)
	if errors.Is(err, tokenbroker.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v, err := p.b.Resolve(ctx, sel)
	if err != nil || v.Key() != st.Snapshot.Variant.Key() {
		return nil, err
	}
	return st.Snapshot.Otherwise(), nil
}

// advice says which rule it was, or what would have to change.
func advice(q policy.Request, d policy.Decision, verdicts []policy.Verdict) string {
	near := policy.Verdict{Rule: d.Rule}
	if i := slices.IndexFunc(verdicts, func(v policy.Verdict) bool { return v.Reason == d.Reason && v.DeniedScope == d.DeniedScope }); i >= 0 && !d.Allowed {
		near = verdicts[i]
	}
	nearest := near.Rule
	switch d.Reason {
	case policy.ReasonAllowed:
		if d.Mode == policy.ModeAudit {
			return fmt.Sprintf("rule %q allows it in audit mode until %s; from then on it is denied, unless a rule that is enforced allows it", d.Rule, d.Until.Format(time.RFC3339))
		}
		return fmt.Sprintf("rule %q allows it", d.Rule)
	case policy.ReasonRule, policy.ReasonAction:
		if len(verdicts) == 0 {
			return "no rule names this identity: compare it with that of the certificate, letter by letter, or add it to the identities of a rule"
		}
		return namedOnly(q.Action, verdicts)
	case policy.ReasonCredential:
		return fmt.Sprintf("no rule that gives this identity %s covers credential %q: add it to the credentials of one, e.g. of %q", q.Action, q.Credential, nearest)
	case policy.ReasonOAuthClient:
		return fmt.Sprintf("no rule that gives this identity %s covers OAuth client %q: add it to the oauth_clients of one, e.g. of %q", q.Action, q.OAuthClient, nearest)
	case policy.ReasonScope:
		if d.DeniedScope == "" {
			return fmt.Sprintf("the credential has no scopes of its own, so the provider decides on them: rule %q has to leave scopes out, or to allow \"**\"", nearest)
		}
		return fmt.Sprintf("rule %q comes nearest, and does not cover scope %s: %s, or ask for less", nearest, d.DeniedScope, widen(near, "scopes"))
	case policy.ReasonSubject:
		return fmt.Sprintf("rule %q comes nearest, and does not let this identity choose subject %q: %s, or leave it out", nearest, q.Subject, widen(near, "subjects"))
	case policy.ReasonAudience:
		return fmt.Sprintf("rule %q comes nearest, and does not let this identity choose audience %q: %s, or leave it out", nearest, q.Audience, widen(near, "audiences"))
	case policy.ReasonExpired:
		return fmt.Sprintf("rule %q was in audit mode and is over: enforce it, or move its end", nearest)
	}
	return ""
}

// namedOnly says what to do where rules name an identity and none gives it an action.
func namedOnly(a policy.Action, verdicts []policy.Verdict) string {
	tried := a == policy.TokenGet || a == policy.TokenSubscribe // what a rule in audit mode may give
	i := slices.IndexFunc(verdicts, func(v policy.Verdict) bool { return tried || v.Mode == policy.ModeEnforce })
	if i < 0 {
		return fmt.Sprintf("rule %q names this identity, but is in audit mode and may not give %s: write an enforced rule for it", verdicts[0].Rule, a)
	}
	return fmt.Sprintf("rules name this identity, and none gives it %s: add it to the actions of one, e.g. of %q", a, verdicts[i].Rule)
}

// widen says how a rule comes to allow what it does not cover. One in audit mode gives only what is the credential's own.
func widen(v policy.Verdict, key string) string {
	if v.Mode == policy.ModeAudit {
		return "it is in audit mode and may have no " + key + ", so write an enforced rule for it"
	}
	return "add it to its " + key
}

// Lint implements tokenbrokerv1.PolicyServiceServer.
func (p *policyService) Lint(ctx context.Context, _ *tokenbrokerv1.LintRequest) (*tokenbrokerv1.LintResponse, error) {
	caller, now := callOf(ctx), time.Now()
	facts := policy.Facts{Used: p.usage.Rules(), Since: p.usage.Since(), Now: now}
	seen := map[string]bool{} // rules that the caller may see: those of credentials that it may see
	for after := ""; ; {
		list, next, err := p.b.Credentials(ctx, after, 1000, func(name string) bool { return caller.may(policy.Request{Credential: name}).Allowed })
		if err != nil {
			return nil, err
		}
		for _, st := range list {
			c := st.Credential
			facts.Credentials = append(facts.Credentials, policy.CredentialFacts{Name: c.Name, Scopes: c.Scopes, Granted: st.Grant.Granted, Subject: c.Subject, Audience: c.Audience})
			for _, g := range caller.policy.Grantees(c.Name, time.Time{}) {
				seen[g.Rule] = true
			}
		}
		if after = next; next == "" {
			break
		}
	}
	all := caller.policy.GrantsAll(caller.Identity, caller.need.action)
	resp := &tokenbrokerv1.LintResponse{PolicyRevision: caller.policy.Revision(), UsageSince: timeToProto(facts.Since)}
	for _, f := range caller.policy.Lint(facts) {
		if all || f.Credential != "" || seen[f.Rule] {
			resp.Findings = append(resp.Findings, &tokenbrokerv1.Finding{Check: f.Check, Rule: f.Rule, Credential: f.Credential, Message: f.Message})
		}
	}
	return resp, nil
}

func modeToProto(m policy.Mode) tokenbrokerv1.PolicyMode {
	if m == policy.ModeAudit {
		return tokenbrokerv1.PolicyMode_POLICY_MODE_AUDIT
	}
	return tokenbrokerv1.PolicyMode_POLICY_MODE_ENFORCE
}
