package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// decide asks the policy whether the call may be made, and notes the decision in its record.
func (s *Server) decide(ctx context.Context, c *call, req any) error {
	if c.need.each {
		if !c.policy.Grants(c.Identity, c.need.action) {
			c.decision = policy.Decision{Reason: policy.ReasonRule}
			return s.refused(c)
		}
		c.decision = policy.Decision{Allowed: true}
		return nil
	}
	r, err := s.requestOf(ctx, c, req)
	if err != nil {
		return err
	}
	c.asked = r
	if err := s.judge(c); err != nil {
		return err
	}
	s.audited(c.decision, c.need.action)
	return nil
}

// audited counts what passes only because a rule is in audit mode.
func (s *Server) audited(d policy.Decision, action policy.Action) {
	if d.Allowed && d.Mode == policy.ModeAudit && s.cfg.Audited != nil {
		s.cfg.Audited(d.Rule, action)
	}
}

// used counts who was given a token, and by which rule.
func (s *Server) used(c *call) {
	if c.given != nil && c.given.Token != nil {
		s.cfg.Usage.Use(c.given.Credential, c.Identity, c.decision.Rule).Mark(time.Now())
	}
}

// judge decides on what is asked, by the policy of the call.
func (s *Server) judge(c *call) error {
	c.decision = c.may(c.asked)
	if !c.decision.Allowed {
		return s.refused(c)
	}
	return nil
}

// release judges an answer with a token once more before it leaves: by the policy that is in force now, since a call may have waited for
// long, and by the scopes that the token has, since the credential may have been edited meanwhile and a provider may give more than was
// asked.
func (s *Server) release(ctx context.Context, c *call) error {
	if c.given == nil {
		return nil
	}
	now, asked, granted := s.cfg.Policy(), c.given.Variant.Scopes, c.given.Otherwise()
	var subject, audience string // as far as they are not the credential's own, by now
	if !c.given.Default.Subject {
		subject = c.given.Variant.Subject
	}
	if !c.given.Default.Audience {
		audience = c.given.Variant.Audience
	}
	if now == c.policy && c.decision.Mode == policy.ModeEnforce && granted == nil && slices.Equal(asked, c.asked.Scopes) &&
		subject == c.asked.Subject && audience == c.asked.Audience {
		return nil
	}
	c.policy, c.record.PolicyRevision = now, now.Revision()
	c.asked.Scopes, c.asked.Subject, c.asked.Audience = asked, subject, audience
	if c.given.Default.Scopes {
		c.asked.Own = asked
	}
	if err := s.judge(c); err != nil || granted == nil {
		return err
	}
	d, err := ceiling(ctx, s.cfg.Broker, c.asked, granted, c.decision, c.may)
	if c.decision = d; errors.Is(err, tokenbroker.ErrScopesTooWide) {
		c.record.ScopesGranted = granted
		s.denied(c)
	}
	return err
}

// ceiling judges a token that a provider gave other scopes than were asked for. r is what was asked, and d allows it. Where nobody asked and
// the credential has no scopes of its own, what the provider gives are its own.
func ceiling(ctx context.Context, b *broker.Broker, r policy.Request, granted []string, d policy.Decision, decide func(policy.Request) policy.Decision) (policy.Decision, error) {
	extra := slices.DeleteFunc(slices.Clone(granted), func(g string) bool { return slices.Contains(r.Scopes, g) })
	if len(extra) == 0 {
		return d, nil
	}
	own, err := b.Own(ctx, r.Credential)
	if err != nil || own.Extra == tokenbroker.ExtraScopesAllow {
		return d, err
	}
	if r.Scopes = granted; len(r.Own) == 0 {
		r.Own = granted
	}
	if d = decide(r); d.Allowed {
		return d, nil
	}
	return d, tooWide(extra)
}

// tooWide says which scopes are too many. They are the provider's words: few of them are told, and none that could be no scope.
func tooWide(extra []string) error {
	const most = 10
	told := slices.DeleteFunc(slices.Clone(extra), func(s string) bool { return tokenbroker.ValidateScopes([]string{s}) != nil })
	told = told[:min(len(told), most)]
	text := strings.Join(told, ", ")
	if more := len(extra) - len(told); more > 0 {
		text = strings.TrimPrefix(fmt.Sprintf("%s and %d more", text, more), " and ")
	}
	return &tokenbroker.Problem{Err: tokenbroker.ErrScopesTooWide, Metadata: map[string]string{"scopes": strings.Join(told, " ")},
		Detail: text + "; narrow the grant at the provider, widen the rule, add an alias to scope_aliases of the profile, or set extra_scopes: allow on the credential"}
}

// requestOf reads from a request what the policy has to judge, and notes it in the record. A malformed request is refused before
// any look-up.
func (s *Server) requestOf(ctx context.Context, c *call, req any) (policy.Request, error) {
	var r policy.Request
	if sel, ok := req.(variantRequest); ok {
		return s.tokenRequest(ctx, c, selectionOf(sel))
	}
	if m, ok := req.(interface{ GetCredential() string }); ok {
		r.Credential = m.GetCredential()
		if err := tokenbroker.ValidateName(r.Credential); err != nil {
			return r, tokenbroker.Invalid("credential", err)
		}
	}
	if m, ok := req.(interface{ GetOauthClient() string }); ok {
		r.OAuthClient = m.GetOauthClient()
		if err := tokenbroker.ValidateName(r.OAuthClient); err != nil {
			return r, tokenbroker.Invalid("oauthClient", err)
		}
	}
	if m, ok := req.(interface {
		GetSpec() *tokenbrokerv1.CredentialSpec
	}); ok {
		c.record.Credential = clip(r.Credential)
		if err := s.specRequest(ctx, c, &r, m.GetSpec()); err != nil {
			return r, err
		}
	}
	c.record.Credential, c.record.OAuthClient = clip(r.Credential), clip(r.OAuthClient)
	return r, nil
}

// specRequest adds what a credential is to be made of: whoever configures it has to be allowed its OAuth client, scopes, subject,
// audience and resources. An edit that names no client is one of the client that there is.
func (s *Server) specRequest(ctx context.Context, c *call, r *policy.Request, spec *tokenbrokerv1.CredentialSpec) error {
	r.OAuthClient, r.Scopes, r.Subject, r.Audience = spec.GetOauthClient(), spec.GetScopes(), spec.GetSubject(), spec.GetAudience()
	if !c.may(*r).Allowed {
		return nil // a caller who is denied anyway learns nothing of the credential, and costs no look-up
	}
	for _, uri := range spec.GetResources() { // each says whom tokens are for, as an audience does (RFC 8707 §2)
		one := *r
		if one.Audience = uri; !c.may(one).Allowed {
			*r = one
			return nil
		}
	}
	if err := errors.Join(mayWiden(c, *r, spec), s.mayFeed(ctx, c, spec.GetSource())); err != nil {
		return err
	}
	if r.OAuthClient != "" {
		return nil
	}
	st, err := s.cfg.Broker.Credential(ctx, r.Credential)
	if errors.Is(err, tokenbroker.ErrNotFound) {
		return nil
	}
	r.OAuthClient = st.Credential.Client
	return err
}

// mayWiden judges who lets scopes pass that nobody asked for: nobody knows which they are going to be.
func mayWiden(c *call, r policy.Request, spec *tokenbrokerv1.CredentialSpec) error {
	if spec.GetExtraScopes() != tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW {
		return nil
	}
	r.AnyScope = true
	d := c.may(r)
	if d.Allowed {
		return nil
	}
	c.decision = policy.Decision{Reason: d.Reason}
	return &tokenbroker.Problem{Err: tokenbroker.ErrScopeNotAllowed, Field: "spec.extraScopes", Detail: "only an identity whose rule allows any scope, \"**\", may let scopes pass that nobody asked for"}
}

// mayFeed judges the source of a credential that is to be made or changed: whoever could get its tokens by it has to be allowed them
// anyway.
func (s *Server) mayFeed(ctx context.Context, c *call, source string) error {
	if source == "" {
		return nil
	}
	if err := tokenbroker.ValidateName(source); err != nil {
		return tokenbroker.Invalid("spec.source", err)
	}
	v, err := s.cfg.Broker.Resolve(ctx, broker.Selection{Credential: source})
	if err != nil && !errors.Is(err, tokenbroker.ErrNotFound) {
		return err
	}
	d := c.policy.Decide(policy.Request{Identity: c.Identity, Action: policy.TokenGet, Credential: source, Scopes: v.Scopes, Own: v.Scopes})
	if err == nil && d.Allowed {
		return nil
	}
	c.decision = d
	if d.Allowed { // it does not exist: said as if it were not allowed
		c.decision = policy.Decision{Reason: policy.ReasonCredential}
	}
	return &tokenbroker.Problem{Err: tokenbroker.ErrNotAllowed, Field: "spec.source", Detail: "no rule gives this identity token.get on it, or there is no such credential"}
}

// tokenRequest is requestOf for the token methods: the policy judges the scopes that the token would have.
func (s *Server) tokenRequest(ctx context.Context, c *call, sel broker.Selection) (policy.Request, error) {
	if err := sel.Check(); err != nil {
		return policy.Request{}, err
	}
	c.record.Credential, c.record.ScopesAsked = sel.Credential, sel.Scopes
	c.record.Subject, c.record.Audience = sel.Subject, sel.Audience
	c.edition = s.cfg.Broker.Edition(sel.Credential)
	asked := policy.Request{Credential: sel.Credential, Scopes: sel.Scopes, Subject: sel.Subject, Audience: sel.Audience}
	if !s.cfg.Broker.Loaded(sel.Credential) { // a look-up would take longer where there is something to be found
		if c.decision = c.may(asked); hides(c.decision) {
			return policy.Request{}, s.refused(c)
		}
	}
	v, err := s.cfg.Broker.Resolve(ctx, sel)
	if err != nil {
		c.decision = c.may(asked)
		switch {
		case hides(c.decision):
			err = s.refused(c)
		case !errors.Is(err, tokenbroker.ErrNotFound):
			c.decision = policy.Decision{Allowed: true} // the broker failed the caller, who was not denied
		}
		return policy.Request{}, err
	}
	return policyRequest(ctx, s.cfg.Broker, sel, v)
}

// policyRequest says to the policy what a selection asks for, v being what it resolves to. A subject or an audience that is the
// credential's own was not chosen.
func policyRequest(ctx context.Context, b *broker.Broker, sel broker.Selection, v tokenbroker.Variant) (policy.Request, error) {
	r := policy.Request{Credential: sel.Credential, Scopes: v.Scopes, Own: v.Scopes}
	if len(sel.Scopes) == 0 && sel.Subject == "" && sel.Audience == "" {
		return r, nil
	}
	own, err := b.Resolve(ctx, broker.Selection{Credential: sel.Credential})
	r.Own = own.Scopes
	if v.Subject != own.Subject {
		r.Subject = v.Subject
	}
	if v.Audience != own.Audience {
		r.Audience = v.Audience
	}
	return r, err
}

// hides reports whether a denial must not show that the credential exists, or in what state it is.
func hides(d policy.Decision) bool {
	return d.Reason == policy.ReasonRule || d.Reason == policy.ReasonCredential || d.Reason == policy.ReasonExpired
}

// refused turns a denial into an error that gives nothing away.
func (s *Server) refused(c *call) error {
	s.denied(c)
	return denial(c.need, c.decision, c.policy.Grants(c.Identity, c.need.action))
}

func (s *Server) denied(c *call) {
	if s.cfg.Denied != nil {
		s.cfg.Denied(c.need.action, string(c.decision.Reason))
	}
}

// denial maps a decision to what the caller is told.
func denial(n need, d policy.Decision, hasAction bool) error {
	switch d.Reason {
	case policy.ReasonScope:
		return scopeDenied(d)
	case policy.ReasonSubject:
		return &tokenbroker.Problem{Err: tokenbroker.ErrScopeNotAllowed, Field: "subject", Detail: "no rule lets this identity choose the subject"}
	case policy.ReasonAudience:
		return &tokenbroker.Problem{Err: tokenbroker.ErrScopeNotAllowed, Field: "audience", Detail: "no rule lets this identity choose the audience"}
	case policy.ReasonAllowed, policy.ReasonRule, policy.ReasonAction, policy.ReasonCredential, policy.ReasonOAuthClient, policy.ReasonExpired:
	}
	switch {
	case n.action == policy.TokenGet || n.action == policy.TokenReport:
		return tokenbroker.ErrNotFound
	case !hasAction || n.create:
		return &tokenbroker.Problem{Err: tokenbroker.ErrNotAllowed, Detail: "no rule gives this identity " + string(n.action) + onIt(n.action)}
	case d.Reason == policy.ReasonOAuthClient:
		return tokenbroker.ErrClientNotFound
	}
	return tokenbroker.ErrNotFound
}

// onIt are the words for an action that is always about one thing.
func onIt(a policy.Action) string {
	switch family, _, _ := strings.Cut(string(a), "."); family {
	case "credential", "oauth_client", "consent":
		return " on it"
	}
	return ""
}

func scopeDenied(d policy.Decision) error {
	p := &tokenbroker.Problem{Err: tokenbroker.ErrScopeNotAllowed, Detail: "no rule allows this identity the scopes"}
	if d.DeniedScope != "" {
		p.Detail = "no rule allows this identity scope " + d.DeniedScope
		p.Metadata = map[string]string{"scope": d.DeniedScope}
	}
	return p
}
