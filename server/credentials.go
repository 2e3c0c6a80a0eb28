package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/usage"
)

// credentialService implements the RPCs on credentials.
type credentialService struct {
	tokenbrokerv1.UnimplementedCredentialServiceServer
	b     *broker.Broker
	audit func(context.Context, audit.Record) error
	usage *usage.Book
}

// CreateCredential implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) CreateCredential(ctx context.Context, r *tokenbrokerv1.CreateCredentialRequest) (*tokenbrokerv1.CreateCredentialResponse, error) {
	cred, err := credentialFromSpec(r.GetCredential(), r.GetSpec())
	if err != nil {
		return nil, err
	}
	h, err := heldOf(r)
	if err != nil {
		return nil, err
	}
	st, err := c.b.CreateCredential(ctx, broker.NewCredential{Credential: cred, RefreshToken: h.secret, Holds: h.holds, RefreshEnd: h.end,
		ValidateOnly: r.GetValidateOnly()})
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.CreateCredentialResponse{Credential: credentialToProto(st), Warnings: st.Warnings}, nil
}

// GetCredential implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) GetCredential(ctx context.Context, r *tokenbrokerv1.GetCredentialRequest) (*tokenbrokerv1.GetCredentialResponse, error) {
	st, err := c.b.Credential(ctx, r.GetCredential())
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.GetCredentialResponse{Credential: credentialToProto(st)}, nil
}

// ListCredentials implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) ListCredentials(ctx context.Context, r *tokenbrokerv1.ListCredentialsRequest) (*tokenbrokerv1.ListCredentialsResponse, error) {
	limit, after, err := page(credentialPages, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	caller := callOf(ctx)
	list, next, err := c.b.Credentials(ctx, after, limit, func(name string) bool {
		return caller.may(policy.Request{Credential: name}).Allowed
	})
	if err != nil {
		return nil, err
	}
	resp := &tokenbrokerv1.ListCredentialsResponse{NextPageToken: pageToken(credentialPages, next)}
	for _, st := range list {
		resp.Credentials = append(resp.Credentials, credentialToProto(st))
	}
	return resp, nil
}

// UpdateCredential implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) UpdateCredential(ctx context.Context, r *tokenbrokerv1.UpdateCredentialRequest) (*tokenbrokerv1.UpdateCredentialResponse, error) {
	version, err := version(r.GetEtag())
	if err != nil {
		return nil, err
	}
	spec := r.GetSpec()
	paths, err := maskPaths(r.GetUpdateMask(), spec.ProtoReflect(), "oauth_client", "scopes", "subject", "audience", "labels", "owner", "resources", "parameters", "source", "extra_scopes")
	if err != nil {
		return nil, err
	}
	extra, err := extraFromProto(spec.GetExtraScopes())
	if err != nil {
		return nil, err
	}
	st, err := c.b.UpdateCredential(ctx, r.GetCredential(), version, func(cred *tokenbroker.Credential) error {
		applySpec(cred, spec, paths)
		if slices.Contains(paths, "extra_scopes") {
			cred.Extra = extra
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.UpdateCredentialResponse{Credential: credentialToProto(st)}, nil
}

// DeleteCredential implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) DeleteCredential(ctx context.Context, r *tokenbrokerv1.DeleteCredentialRequest) (*tokenbrokerv1.DeleteCredentialResponse, error) {
	version, err := version(r.GetEtag())
	if err != nil {
		return nil, err
	}
	if err := c.b.DeleteCredential(ctx, r.GetCredential(), version); err != nil {
		return nil, err
	}
	return &tokenbrokerv1.DeleteCredentialResponse{}, nil
}

// DisableCredential implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) DisableCredential(ctx context.Context, r *tokenbrokerv1.DisableCredentialRequest) (*tokenbrokerv1.DisableCredentialResponse, error) {
	st, err := c.b.SetDisabled(ctx, r.GetCredential(), true)
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.DisableCredentialResponse{Credential: credentialToProto(st)}, nil
}

// EnableCredential implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) EnableCredential(ctx context.Context, r *tokenbrokerv1.EnableCredentialRequest) (*tokenbrokerv1.EnableCredentialResponse, error) {
	st, err := c.b.SetDisabled(ctx, r.GetCredential(), false)
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.EnableCredentialResponse{Credential: credentialToProto(st)}, nil
}

// RefreshCredential implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) RefreshCredential(ctx context.Context, r *tokenbrokerv1.RefreshCredentialRequest) (*tokenbrokerv1.RefreshCredentialResponse, error) {
	st, err := c.b.Refresh(ctx, r.GetCredential())
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.RefreshCredentialResponse{Credential: credentialToProto(st)}, nil
}

// ImportRefreshToken implements tokenbrokerv1.CredentialServiceServer.
func (c *credentialService) ImportRefreshToken(ctx context.Context, r *tokenbrokerv1.ImportRefreshTokenRequest) (*tokenbrokerv1.ImportRefreshTokenResponse, error) {
	h, err := heldOf(r)
	if err != nil {
		return nil, err
	}
	st, err := c.b.Adopt(ctx, r.GetCredential(), tokenbroker.Adoption{RefreshToken: h.secret, Holds: h.holds, RefreshEnd: h.end})
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.ImportRefreshTokenResponse{Credential: credentialToProto(st)}, nil
}

// grants maps grant types to the wire.
var grants = map[tokenbrokerv1.GrantType]tokenbroker.GrantType{
	tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS: tokenbroker.GrantClientCredentials,
	tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN:      tokenbroker.GrantRefreshToken,
	tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE: tokenbroker.GrantAuthorizationCode,
	tokenbrokerv1.GrantType_GRANT_TYPE_DEVICE_CODE:        tokenbroker.GrantDeviceCode,
	tokenbrokerv1.GrantType_GRANT_TYPE_JWT_BEARER:         tokenbroker.GrantJWTBearer,
	tokenbrokerv1.GrantType_GRANT_TYPE_SELF_SIGNED_JWT:    tokenbroker.GrantSelfSignedJWT,
	tokenbrokerv1.GrantType_GRANT_TYPE_TOKEN_EXCHANGE:     tokenbroker.GrantTokenExchange,
	tokenbrokerv1.GrantType_GRANT_TYPE_GOOGLE_ADC:         tokenbroker.GrantGoogleADC,
	tokenbrokerv1.GrantType_GRANT_TYPE_STATIC:             tokenbroker.GrantStatic,
	tokenbrokerv1.GrantType_GRANT_TYPE_PASSWORD:           tokenbroker.GrantPassword,
}

func credentialFromSpec(name string, spec *tokenbrokerv1.CredentialSpec) (tokenbroker.Credential, error) {
	g, ok := grants[spec.GetGrantType()]
	if !ok {
		return tokenbroker.Credential{}, tokenbroker.Invalid("spec.grantType",
			errors.New("is required, e.g. GRANT_TYPE_CLIENT_CREDENTIALS"))
	}
	extra, err := extraFromProto(spec.GetExtraScopes())
	if err != nil {
		return tokenbroker.Credential{}, err
	}
	return tokenbroker.Credential{Name: name, Provider: spec.GetProvider(), Client: spec.GetOauthClient(), Grant: g, Extra: extra,
		Scopes: spec.GetScopes(), Subject: spec.GetSubject(), Audience: spec.GetAudience(),
		Resources: spec.GetResources(), Parameters: spec.GetParameters(), Source: spec.GetSource(),
		Labels: spec.GetLabels(), Owner: spec.GetOwner()}, nil
}

// extraFromProto reads what is to become of scopes that nobody asked for.
func extraFromProto(e tokenbrokerv1.ExtraScopes) (tokenbroker.ExtraScopes, error) {
	switch e {
	case tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_UNSPECIFIED, tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_JUDGE:
		return tokenbroker.ExtraScopesJudge, nil
	case tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW:
		return tokenbroker.ExtraScopesAllow, nil
	}
	return "", tokenbroker.Invalid("spec.extraScopes", errors.New("is EXTRA_SCOPES_JUDGE or EXTRA_SCOPES_ALLOW"))
}

func extraToProto(e tokenbroker.ExtraScopes) tokenbrokerv1.ExtraScopes {
	if e == tokenbroker.ExtraScopesAllow {
		return tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW
	}
	return tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_UNSPECIFIED
}

func applySpec(c *tokenbroker.Credential, spec *tokenbrokerv1.CredentialSpec, paths []string) {
	for _, p := range paths {
		switch p {
		case "oauth_client":
			c.Client = spec.GetOauthClient()
		case "scopes":
			c.Scopes = spec.GetScopes()
		case "subject":
			c.Subject = spec.GetSubject()
		case "audience":
			c.Audience = spec.GetAudience()
		case "labels":
			c.Labels = spec.GetLabels()
		case "owner":
			c.Owner = spec.GetOwner()
		case "resources":
			c.Resources = spec.GetResources()
		case "parameters":
			c.Parameters = spec.GetParameters()
		case "source":
			c.Source = spec.GetSource()
		}
	}
}

func clampInt32(n int) int32 { return int32(min(n, 1<<31-1)) }

func etag(version uint64) string {
	if version == 0 {
		return ""
	}
	return strconv.FormatUint(version, 10)
}

// version reads an etag; 0 means that none was given.
func version(etag string) (uint64, error) {
	if etag == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(etag, 10, 64)
	if err != nil || v == 0 {
		return 0, &tokenbroker.Problem{Err: tokenbroker.ErrETagMismatch, Detail: "it is no etag of ours; read the resource again"}
	}
	return v, nil
}

func page(kind string, size int32, token string) (limit int, after string, err error) {
	if limit, err = pageSize(size); err != nil {
		return 0, "", err
	}
	after, err = pageAfter(kind, token)
	return limit, after, err
}

// pageSize is how many a page may have.
func pageSize(size int32) (int, error) {
	switch {
	case size < 0:
		return 0, tokenbroker.Invalid("pageSize", fmt.Errorf("%d is negative", size))
	case size == 0:
		size = 50
	}
	return int(min(size, 1000)), nil
}

// optionalTime reads a time that may be absent.
func optionalTime(field string, t *timestamppb.Timestamp) (end time.Time, err error) {
	if t == nil {
		return end, nil
	}
	if err := t.CheckValid(); err != nil {
		return end, tokenbroker.Invalid(field, errors.New("is no valid time"))
	}
	return t.AsTime(), nil
}
