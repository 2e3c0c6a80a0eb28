package server

import (
	"context"
	"crypto/rand"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// need is what a method asks of its caller.
type need struct {
	action policy.Action // "" with open
	open   bool          // any authenticated identity may call it, and it is not audited
	each   bool          // the handler asks for each thing it touches; the guard only whether the identity has the action at all
	create bool          // a refusal need not hide whether the name exists
}

// needs is the table: method → what it asks. A method that is not here is denied.
var needs = map[string]need{
	tokenbrokerv1.TokenService_GetToken_FullMethodName:       {action: policy.TokenGet},
	tokenbrokerv1.TokenService_Subscribe_FullMethodName:      {action: policy.TokenSubscribe, each: true},
	tokenbrokerv1.TokenService_ReportRejected_FullMethodName: {action: policy.TokenReport},

	tokenbrokerv1.CredentialService_CreateCredential_FullMethodName:   {action: policy.CredentialCreate, create: true},
	tokenbrokerv1.CredentialService_GetCredential_FullMethodName:      {action: policy.CredentialGet},
	tokenbrokerv1.CredentialService_ListCredentials_FullMethodName:    {action: policy.CredentialList, each: true},
	tokenbrokerv1.CredentialService_UpdateCredential_FullMethodName:   {action: policy.CredentialUpdate},
	tokenbrokerv1.CredentialService_DeleteCredential_FullMethodName:   {action: policy.CredentialDelete},
	tokenbrokerv1.CredentialService_DisableCredential_FullMethodName:  {action: policy.CredentialDisable},
	tokenbrokerv1.CredentialService_EnableCredential_FullMethodName:   {action: policy.CredentialEnable},
	tokenbrokerv1.CredentialService_RefreshCredential_FullMethodName:  {action: policy.CredentialRefresh},
	tokenbrokerv1.CredentialService_ImportRefreshToken_FullMethodName: {action: policy.CredentialImport},

	tokenbrokerv1.OAuthClientService_CreateOAuthClient_FullMethodName:  {action: policy.OAuthClientCreate, create: true},
	tokenbrokerv1.OAuthClientService_GetOAuthClient_FullMethodName:     {action: policy.OAuthClientGet},
	tokenbrokerv1.OAuthClientService_ListOAuthClients_FullMethodName:   {action: policy.OAuthClientList, each: true},
	tokenbrokerv1.OAuthClientService_UpdateOAuthClient_FullMethodName:  {action: policy.OAuthClientUpdate},
	tokenbrokerv1.OAuthClientService_DeleteOAuthClient_FullMethodName:  {action: policy.OAuthClientDelete},
	tokenbrokerv1.OAuthClientService_AddClientSecret_FullMethodName:    {action: policy.OAuthClientAddSecret},
	tokenbrokerv1.OAuthClientService_RetireClientSecret_FullMethodName: {action: policy.OAuthClientRetireSecret},

	grpc_health_v1.Health_Check_FullMethodName:                             {open: true},
	grpc_health_v1.Health_List_FullMethodName:                              {open: true},
	grpc_health_v1.Health_Watch_FullMethodName:                             {open: true},
	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      {action: policy.ReflectionUse, each: true},
	reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: {action: policy.ReflectionUse, each: true},
}

// call is one RPC on its way through the guard.
type call struct {
	*caller
	need     need
	policy   *policy.Policy
	began    time.Time
	decision policy.Decision
	record   audit.Record
}

// callKey is where a handler finds its call.
type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// may asks the policy about one more thing, for handlers that touch several.
func (c *call) may(r policy.Request) policy.Decision {
	r.Identity, r.Action = c.Identity, c.need.action
	return c.policy.Decide(r)
}

// admit identifies the caller of a method and finds what the method needs.
func (s *Server) admit(ctx context.Context, method string) (*call, error) {
	peer, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	n, ok := needs[method]
	if !ok {
		return nil, errUnknownMethod
	}
	c := &call{caller: peer, need: n, policy: s.cfg.Policy(), began: time.Now()}
	c.record = audit.Record{Kind: audit.KindCall, RequestID: rand.Text()[:16], Identity: peer.Identity, Peer: peer.addr,
		CertFingerprint: peer.Fingerprint, Action: string(n.action), PolicyRevision: c.policy.Revision()}
	return c, nil
}

// guardUnary decides on a call, lets it run, and releases its answer once the record of it is written.
func (s *Server) guardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	c, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if c.need.open {
		return next(ctx, req)
	}
	resp, err := s.decideAndRun(ctx, c, req, next)
	c.fill(resp, err)
	if auditErr := s.record(ctx, c.record); auditErr != nil && err == nil {
		return nil, auditErr
	}
	return resp, err
}

// record writes an audit record. A caller who leaves does not take back what was done for it, so its leaving does not keep the record
// from being written; the log has a deadline of its own.
func (s *Server) record(ctx context.Context, r audit.Record) error {
	return s.cfg.Audit(context.WithoutCancel(ctx), r)
}

func (s *Server) decideAndRun(ctx context.Context, c *call, req any, next grpc.UnaryHandler) (any, error) {
	if err := s.decide(ctx, c, req); err != nil {
		return nil, err
	}
	return next(context.WithValue(ctx, callKey{}, c), req)
}

// guardStream is guardUnary for streams. What a stream sends is recorded by those who send it.
func (s *Server) guardStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx := ss.Context()
	c, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	if c.need.open {
		return next(srv, ss)
	}
	err = s.decide(ctx, c, nil)
	if err != nil || c.need.action == policy.ReflectionUse {
		c.fill(nil, err)
		if auditErr := s.record(ctx, c.record); auditErr != nil && err == nil {
			err = auditErr
		}
	}
	if err != nil {
		return err
	}
	return next(srv, &callStream{ServerStream: ss, ctx: context.WithValue(ctx, callKey{}, c)})
}

// callStream is a stream whose context holds its call.
type callStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // that is what grpc.ServerStream asks for
}

// Context implements grpc.ServerStream.
func (s *callStream) Context() context.Context { return s.ctx }

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
	c.decision = c.may(r)
	if !c.decision.Allowed {
		return s.refused(c)
	}
	return nil
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
		r.OAuthClient = m.GetSpec().GetOauthClient()
	}
	c.record.Credential, c.record.OAuthClient = clip(r.Credential), clip(r.OAuthClient)
	return r, nil
}

// tokenRequest is requestOf for the token methods: the policy judges the scopes that the token would have.
func (s *Server) tokenRequest(ctx context.Context, c *call, sel broker.Selection) (policy.Request, error) {
	if err := sel.Check(); err != nil {
		return policy.Request{}, err
	}
	c.record.Credential, c.record.ScopesAsked = sel.Credential, sel.Scopes
	c.record.Subject, c.record.Audience = sel.Subject, sel.Audience
	v, err := s.cfg.Broker.Resolve(ctx, sel)
	if err != nil {
		c.decision = c.may(policy.Request{Credential: sel.Credential, Scopes: sel.Scopes, Subject: sel.Subject, Audience: sel.Audience})
		if hides(c.decision) {
			err = s.refused(c)
		}
		return policy.Request{}, err
	}
	return policyRequest(ctx, s.cfg.Broker, sel, v)
}

// policyRequest says to the policy what a selection asks for, v being what it resolves to. A subject or an audience that is the
// credential's own was not chosen.
func policyRequest(ctx context.Context, b *broker.Broker, sel broker.Selection, v tokenbroker.Variant) (policy.Request, error) {
	r := policy.Request{Credential: sel.Credential, Scopes: v.Scopes}
	if sel.Subject == "" && sel.Audience == "" {
		return r, nil
	}
	own, err := b.Resolve(ctx, broker.Selection{Credential: sel.Credential})
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
	return d.Reason == policy.ReasonRule || d.Reason == policy.ReasonCredential
}

// refused turns a denial into an error that gives nothing away.
func (s *Server) refused(c *call) error {
	if s.cfg.Denied != nil {
		s.cfg.Denied(c.need.action, string(c.decision.Reason))
	}
	return denial(c.need, c.decision, c.policy.Grants(c.Identity, c.need.action))
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
	case policy.ReasonAllowed, policy.ReasonRule, policy.ReasonCredential, policy.ReasonOAuthClient:
	}
	switch {
	case n.action == policy.TokenGet || n.action == policy.TokenReport:
		return tokenbroker.ErrNotFound
	case !hasAction || n.create:
		return &tokenbroker.Problem{Err: tokenbroker.ErrNotAllowed, Detail: "no rule gives this identity " + string(n.action) + " on it"}
	case d.Reason == policy.ReasonOAuthClient:
		return tokenbroker.ErrClientNotFound
	}
	return tokenbroker.ErrNotFound
}

func scopeDenied(d policy.Decision) error {
	p := &tokenbroker.Problem{Err: tokenbroker.ErrScopeNotAllowed, Detail: "no rule allows this identity the scopes"}
	if d.DeniedScope != "" {
		p.Detail = "no rule allows this identity scope " + d.DeniedScope
		p.Metadata = map[string]string{"scope": d.DeniedScope}
	}
	return p
}

// fill completes the record of a call with how it ended.
func (c *call) fill(resp any, err error) {
	c.record.Latency = time.Since(c.began)
	c.record.Rule, c.record.Reason = c.decision.Rule, string(c.decision.Reason)
	c.record.Decision = audit.Deny
	if c.decision.Allowed {
		c.record.Decision = audit.Allow
	}
	c.record.Code = codeOf(err)
	if m, ok := resp.(interface{ GetToken() *tokenbrokerv1.Token }); ok && err == nil {
		c.record.Generation = tokenbroker.Generation(m.GetToken().GetGeneration())
		c.record.ScopesGranted = m.GetToken().GetScopes()
	}
}

// clip bounds what a caller's own words add to a record.
func clip(s string) string { return s[:min(len(s), tokenbroker.MaxNameBytes)] }
