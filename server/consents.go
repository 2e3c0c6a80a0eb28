package server

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// Consents is what the ConsentService speaks for. Errors wrap sentinels of package tokenbroker. It judges nobody: that the caller may is
// known before.
type Consents interface {
	ConsentChanges
	ConsentReads
}

// ConsentChanges takes consents on their way.
type ConsentChanges interface {
	// Begin starts a consent.
	Begin(ctx context.Context, b tokenbroker.BeginConsent) (tokenbroker.ConsentStart, error)
	// Complete redeems a callback, once, for the identity that began the consent.
	Complete(ctx context.Context, id, identity string, callbackURL tokenbroker.Secret) (tokenbroker.Consent, error)
	// Accept takes the account that consented for the right one.
	Accept(ctx context.Context, id, account string) (tokenbroker.Consent, error)
	// Cancel ends a consent.
	Cancel(ctx context.Context, id string) (tokenbroker.Consent, error)
}

// ConsentReads shows consents.
type ConsentReads interface {
	// Consent shows one; ErrConsentNotFound.
	Consent(ctx context.Context, id string) (tokenbroker.Consent, error)
	// Consents lists those of a credential ("" = of all) that allowed says yes to, the newest first.
	Consents(ctx context.Context, credential string, allowed func(credential string) bool) ([]tokenbroker.Consent, error)
}

// consentService implements the RPCs on consents.
type consentService struct {
	tokenbrokerv1.UnimplementedConsentServiceServer
	consents Consents
	b        *broker.Broker
}

func newConsentService(cfg Config) tokenbrokerv1.ConsentServiceServer {
	if cfg.Consents == nil {
		return tokenbrokerv1.UnimplementedConsentServiceServer{}
	}
	return &consentService{consents: cfg.Consents, b: cfg.Broker}
}

// BeginConsent implements tokenbrokerv1.ConsentServiceServer.
func (c *consentService) BeginConsent(ctx context.Context, r *tokenbrokerv1.BeginConsentRequest) (*tokenbrokerv1.BeginConsentResponse, error) {
	if err := c.mayBegin(ctx, r); err != nil {
		return nil, err
	}
	start, err := c.consents.Begin(ctx, tokenbroker.BeginConsent{Credential: r.GetCredential(), Identity: callOf(ctx).Identity,
		Flow: flows[r.GetFlow()], Scopes: r.GetScopes(), RedirectURI: r.GetRedirectUri(), ExpectedAccount: r.GetExpectAccount(),
		ReplaceAccount: r.GetReplaceAccount()})
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.BeginConsentResponse{Consent: consentToProto(start.Consent), AuthorizationUrl: start.AuthorizationURL,
		Link: start.Link.Reveal(), UserCode: start.UserCode, VerificationUri: start.VerificationURI,
		VerificationUriComplete: start.VerificationURIComplete, RedirectUri: start.Consent.RedirectURI}, nil
}

// mayBegin judges what the guard could not see: the scopes that will be asked for and the OAuth client that asks.
func (c *consentService) mayBegin(ctx context.Context, r *tokenbrokerv1.BeginConsentRequest) error {
	st, err := c.b.Credential(ctx, r.GetCredential())
	if err != nil {
		return err
	}
	scopes := r.GetScopes()
	if len(scopes) == 0 {
		scopes = st.Credential.Scopes
	}
	if err := tokenbroker.Invalid("scopes", tokenbroker.ValidateScopes(scopes)); err != nil {
		return err
	}
	caller := callOf(ctx)
	caller.record.OAuthClient, caller.record.ScopesAsked = st.Credential.Client, scopes
	d := caller.may(policy.Request{Credential: r.GetCredential(), OAuthClient: st.Credential.Client, Scopes: scopes})
	if !d.Allowed {
		caller.decision = d
		return denial(caller.need, d, true)
	}
	return nil
}

// CompleteConsent implements tokenbrokerv1.ConsentServiceServer.
func (c *consentService) CompleteConsent(ctx context.Context, r *tokenbrokerv1.CompleteConsentRequest) (*tokenbrokerv1.CompleteConsentResponse, error) {
	if _, err := c.visible(ctx, r.GetConsentId()); err != nil {
		return nil, err
	}
	if r.GetCallbackUrl() == "" {
		return nil, tokenbroker.Invalid("callbackUrl", errors.New("is required: the whole URL that the browser was redirected to"))
	}
	done, err := c.consents.Complete(ctx, r.GetConsentId(), callOf(ctx).Identity, tokenbroker.NewSecret(r.GetCallbackUrl()))
	if err != nil {
		return nil, err
	}
	consent, credential, err := c.summary(ctx, done)
	return &tokenbrokerv1.CompleteConsentResponse{Consent: consent, Credential: credential}, err
}

// GetConsent implements tokenbrokerv1.ConsentServiceServer.
func (c *consentService) GetConsent(ctx context.Context, r *tokenbrokerv1.GetConsentRequest) (*tokenbrokerv1.GetConsentResponse, error) {
	got, err := c.visible(ctx, r.GetConsentId())
	if err != nil {
		return nil, err
	}
	resp := &tokenbrokerv1.GetConsentResponse{Consent: consentToProto(got)}
	if !got.State.Over() {
		resp.PollInterval = durationpb.New(max(got.Interval, pollInterval))
	}
	if got.State == tokenbroker.ConsentDone {
		resp.Consent.Permitted = permitted(ctx, got)
	}
	return resp, nil
}

// ListConsents implements tokenbrokerv1.ConsentServiceServer.
func (c *consentService) ListConsents(ctx context.Context, r *tokenbrokerv1.ListConsentsRequest) (*tokenbrokerv1.ListConsentsResponse, error) {
	if name := r.GetCredential(); name != "" {
		if err := tokenbroker.ValidateName(name); err != nil {
			return nil, tokenbroker.Invalid("credential", err)
		}
	}
	caller := callOf(ctx)
	list, err := c.consents.Consents(ctx, r.GetCredential(), func(credential string) bool {
		return caller.may(policy.Request{Credential: credential}).Allowed
	})
	if err != nil {
		return nil, err
	}
	resp := &tokenbrokerv1.ListConsentsResponse{}
	for _, consent := range list {
		resp.Consents = append(resp.Consents, consentToProto(consent))
	}
	return resp, nil
}

// AcceptConsent implements tokenbrokerv1.ConsentServiceServer.
func (c *consentService) AcceptConsent(ctx context.Context, r *tokenbrokerv1.AcceptConsentRequest) (*tokenbrokerv1.AcceptConsentResponse, error) {
	if _, err := c.visible(ctx, r.GetConsentId()); err != nil {
		return nil, err
	}
	done, err := c.consents.Accept(ctx, r.GetConsentId(), r.GetAccount())
	if err != nil {
		return nil, err
	}
	consent, credential, err := c.summary(ctx, done)
	return &tokenbrokerv1.AcceptConsentResponse{Consent: consent, Credential: credential}, err
}

// CancelConsent implements tokenbrokerv1.ConsentServiceServer.
func (c *consentService) CancelConsent(ctx context.Context, r *tokenbrokerv1.CancelConsentRequest) (*tokenbrokerv1.CancelConsentResponse, error) {
	if _, err := c.visible(ctx, r.GetConsentId()); err != nil {
		return nil, err
	}
	done, err := c.consents.Cancel(ctx, r.GetConsentId())
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.CancelConsentResponse{Consent: consentToProto(done)}, nil
}

// visible finds a consent of a credential that the caller's rules cover for this method, and notes it in the record. What is not there and
// what is not covered answer alike.
func (c *consentService) visible(ctx context.Context, id string) (tokenbroker.Consent, error) {
	if id == "" || len(id) > tokenbroker.MaxNameBytes {
		return tokenbroker.Consent{}, tokenbroker.Invalid("consentId", errors.New("is required"))
	}
	caller := callOf(ctx)
	got, err := c.consents.Consent(ctx, id)
	if err != nil {
		return got, err
	}
	caller.record.Credential = got.Credential
	if d := caller.may(policy.Request{Credential: got.Credential}); !d.Allowed {
		caller.decision = d
		return tokenbroker.Consent{}, tokenbroker.ErrConsentNotFound
	}
	return got, nil
}

// summary is a consent that is done, with its credential and who may use that.
func (c *consentService) summary(ctx context.Context, done tokenbroker.Consent) (*tokenbrokerv1.Consent, *tokenbrokerv1.Credential, error) {
	st, err := c.b.Credential(ctx, done.Credential)
	if err != nil {
		return nil, nil, err
	}
	consent := consentToProto(done)
	consent.Permitted = permitted(ctx, done)
	return consent, credentialToProto(st), nil
}

func permitted(ctx context.Context, c tokenbroker.Consent) []string {
	return callOf(ctx).policy.Who(policy.TokenGet, c.Credential)
}

// pollInterval is how often a caller may ask how a consent stands.
const pollInterval = 2 * retrySoon

// flows maps flows from the wire.
var flows = map[tokenbrokerv1.ConsentFlow]tokenbroker.ConsentFlow{
	tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LOOPBACK: tokenbroker.FlowLoopback,
	tokenbrokerv1.ConsentFlow_CONSENT_FLOW_PASTE:    tokenbroker.FlowPaste,
	tokenbrokerv1.ConsentFlow_CONSENT_FLOW_DEVICE:   tokenbroker.FlowDevice,
	tokenbrokerv1.ConsentFlow_CONSENT_FLOW_LINK:     tokenbroker.FlowLink,
}

func flowToProto(f tokenbroker.ConsentFlow) tokenbrokerv1.ConsentFlow {
	for wire, flow := range flows {
		if flow == f {
			return wire
		}
	}
	return tokenbrokerv1.ConsentFlow_CONSENT_FLOW_UNSPECIFIED
}

func consentToProto(c tokenbroker.Consent) *tokenbrokerv1.Consent {
	return &tokenbrokerv1.Consent{
		ConsentId: c.ID, Credential: c.Credential, Flow: flowToProto(c.Flow),
		State: tokenbrokerv1.ConsentState(tokenbrokerv1.ConsentState_value["CONSENT_STATE_"+string(c.State)]),
		Code:  c.Code, Advice: c.Advice, BegunBy: c.BegunBy, Scopes: slices.Clone(c.Scopes), Account: c.Account, ExpectedAccount: c.ExpectedAccount,
		GrantedScopes: c.Granted, MissingScopes: c.Missing, CreateTime: timeToProto(c.Created), ExpireTime: timeToProto(c.Expiry),
		EndTime: timeToProto(c.Ended), Trial: c.Trial,
	}
}
