package server

import (
	"cmp"
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// oauthClientService implements the RPCs on OAuth clients.
type oauthClientService struct {
	tokenbrokerv1.UnimplementedOAuthClientServiceServer
	b *broker.Broker
}

// CreateOAuthClient implements tokenbrokerv1.OAuthClientServiceServer.
func (o *oauthClientService) CreateOAuthClient(ctx context.Context, r *tokenbrokerv1.CreateOAuthClientRequest) (*tokenbrokerv1.CreateOAuthClientResponse, error) {
	spec := r.GetSpec()
	auth, err := authFromProto(spec.GetAuthMethod())
	if err != nil {
		return nil, err
	}
	secret, err := newSecret(r)
	if err != nil {
		return nil, err
	}
	c, err := o.b.CreateClient(ctx, tokenbroker.OAuthClient{Name: r.GetOauthClient(), Provider: spec.GetProvider(),
		ClientID: spec.GetClientId(), Auth: auth, Labels: spec.GetLabels()}, secret, r.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.CreateOAuthClientResponse{OauthClient: clientToProto(c)}, nil
}

// GetOAuthClient implements tokenbrokerv1.OAuthClientServiceServer.
func (o *oauthClientService) GetOAuthClient(ctx context.Context, r *tokenbrokerv1.GetOAuthClientRequest) (*tokenbrokerv1.GetOAuthClientResponse, error) {
	c, err := o.b.Client(ctx, r.GetOauthClient())
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.GetOAuthClientResponse{OauthClient: clientToProto(c)}, nil
}

// ListOAuthClients implements tokenbrokerv1.OAuthClientServiceServer.
func (o *oauthClientService) ListOAuthClients(ctx context.Context, r *tokenbrokerv1.ListOAuthClientsRequest) (*tokenbrokerv1.ListOAuthClientsResponse, error) {
	limit, after, err := page(oauthClientPages, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	caller := callOf(ctx)
	list, next, err := o.b.ListClients(ctx, after, limit, func(name string) bool {
		return caller.may(policy.Request{OAuthClient: name}).Allowed
	})
	if err != nil {
		return nil, err
	}
	resp := &tokenbrokerv1.ListOAuthClientsResponse{NextPageToken: pageToken(oauthClientPages, next)}
	for _, c := range list {
		resp.OauthClients = append(resp.OauthClients, clientToProto(c))
	}
	return resp, nil
}

// UpdateOAuthClient implements tokenbrokerv1.OAuthClientServiceServer.
func (o *oauthClientService) UpdateOAuthClient(ctx context.Context, r *tokenbrokerv1.UpdateOAuthClientRequest) (*tokenbrokerv1.UpdateOAuthClientResponse, error) {
	version, err := version(r.GetEtag())
	if err != nil {
		return nil, err
	}
	spec := r.GetSpec()
	paths, err := maskPaths(r.GetUpdateMask(), spec.ProtoReflect(), "client_id", "auth_method", "labels")
	if err != nil {
		return nil, err
	}
	c, err := o.b.UpdateClient(ctx, r.GetOauthClient(), version, func(c *tokenbroker.OAuthClient) error {
		return applyClientSpec(c, spec, paths)
	})
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.UpdateOAuthClientResponse{OauthClient: clientToProto(c)}, nil
}

// DeleteOAuthClient implements tokenbrokerv1.OAuthClientServiceServer.
func (o *oauthClientService) DeleteOAuthClient(ctx context.Context, r *tokenbrokerv1.DeleteOAuthClientRequest) (*tokenbrokerv1.DeleteOAuthClientResponse, error) {
	version, err := version(r.GetEtag())
	if err != nil {
		return nil, err
	}
	if err := o.b.DeleteClient(ctx, r.GetOauthClient(), version); err != nil {
		return nil, err
	}
	return &tokenbrokerv1.DeleteOAuthClientResponse{}, nil
}

// AddClientSecret implements tokenbrokerv1.OAuthClientServiceServer.
func (o *oauthClientService) AddClientSecret(ctx context.Context, r *tokenbrokerv1.AddClientSecretRequest) (*tokenbrokerv1.AddClientSecretResponse, error) {
	secret, err := newSecret(r)
	if err != nil {
		return nil, err
	}
	c, err := o.b.AddSecret(ctx, r.GetOauthClient(), secret)
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.AddClientSecretResponse{OauthClient: clientToProto(c)}, nil
}

// RetireClientSecret implements tokenbrokerv1.OAuthClientServiceServer.
func (o *oauthClientService) RetireClientSecret(ctx context.Context, r *tokenbrokerv1.RetireClientSecretRequest) (*tokenbrokerv1.RetireClientSecretResponse, error) {
	c, err := o.b.RetireSecret(ctx, r.GetOauthClient(), r.GetSecretId())
	if err != nil {
		return nil, err
	}
	return &tokenbrokerv1.RetireClientSecretResponse{OauthClient: clientToProto(c)}, nil
}

// secretRequest is a request that brings a secret or a key.
type secretRequest interface {
	GetClientSecret() string
	keyRequest
}

// keyRequest is the part of it that speaks of keys.
type keyRequest interface {
	GetPrivateKey() string
	GetCertificate() string
	GetKeyId() string
	lifeRequest
}

// lifeRequest is the part of it that speaks of its life.
type lifeRequest interface {
	GetSecretExpireTime() *timestamppb.Timestamp
	GetRotateAfter() *durationpb.Duration
}

func newSecret(r secretRequest) (n broker.NewSecret, err error) {
	n = broker.NewSecret{Secret: tokenbroker.NewSecret(r.GetClientSecret()), PrivateKey: tokenbroker.NewSecret(r.GetPrivateKey()),
		Certificate: r.GetCertificate(), KeyID: r.GetKeyId()}
	if d := r.GetRotateAfter(); d != nil {
		if d.CheckValid() != nil {
			return n, tokenbroker.Invalid("rotateAfter", errors.New("is no valid duration"))
		}
		n.RotateAfter = d.AsDuration()
	}
	n.Expiry, err = optionalTime("secretExpireTime", r.GetSecretExpireTime())
	return n, err
}

// authMethods maps client authentication to the wire.
var authMethods = map[tokenbrokerv1.AuthMethod]tokenbroker.AuthMethod{
	tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC: tokenbroker.AuthClientSecretBasic,
	tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_POST:  tokenbroker.AuthClientSecretPost,
	tokenbrokerv1.AuthMethod_AUTH_METHOD_NONE:                tokenbroker.AuthNone,
	tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_JWT:   tokenbroker.AuthClientSecretJWT,
	tokenbrokerv1.AuthMethod_AUTH_METHOD_PRIVATE_KEY_JWT:     tokenbroker.AuthPrivateKeyJWT,
	tokenbrokerv1.AuthMethod_AUTH_METHOD_TLS_CLIENT_AUTH:     tokenbroker.AuthTLSClientAuth,
	tokenbrokerv1.AuthMethod_AUTH_METHOD_SERVICE_ACCOUNT:     tokenbroker.AuthServiceAccount,
}

func authFromProto(m tokenbrokerv1.AuthMethod) (tokenbroker.AuthMethod, error) {
	if auth, ok := authMethods[m]; ok {
		return auth, nil
	}
	return "", tokenbroker.Invalid("spec.authMethod",
		errors.New("is required: one of AUTH_METHOD_CLIENT_SECRET_BASIC, _CLIENT_SECRET_POST, _CLIENT_SECRET_JWT, _PRIVATE_KEY_JWT, _TLS_CLIENT_AUTH, _SERVICE_ACCOUNT, _NONE"))
}

func applyClientSpec(c *tokenbroker.OAuthClient, spec *tokenbrokerv1.OAuthClientSpec, paths []string) (err error) {
	for _, p := range paths {
		switch p {
		case "client_id":
			c.ClientID = spec.GetClientId()
		case "auth_method":
			c.Auth, err = authFromProto(spec.GetAuthMethod())
		case "labels":
			c.Labels = spec.GetLabels()
		}
	}
	return err
}

func clientToProto(c tokenbroker.OAuthClient) *tokenbrokerv1.OAuthClient {
	var auth tokenbrokerv1.AuthMethod
	for wire, m := range authMethods {
		if m == c.Auth {
			auth = wire
		}
	}
	out := &tokenbrokerv1.OAuthClient{
		OauthClient: c.Name,
		Spec:        &tokenbrokerv1.OAuthClientSpec{Provider: c.Provider, ClientId: c.ClientID, AuthMethod: auth, Labels: c.Labels, AccountId: c.Account},
		Etag:        etag(c.Version), CreateTime: timeToProto(c.Created), UpdateTime: timeToProto(c.Updated),
	}
	for _, s := range c.Secrets {
		out.Secrets = append(out.Secrets, secretToProto(s))
	}
	return out
}

func secretToProto(s tokenbroker.ClientSecret) *tokenbrokerv1.ClientSecret {
	out := &tokenbrokerv1.ClientSecret{SecretId: s.ID, Kind: string(cmp.Or(s.Kind, tokenbroker.KindSecret)), Fingerprint: s.Fingerprint,
		KeyId: s.KeyID, Algorithm: s.Algorithm, AddTime: timeToProto(s.Added), ExpireTime: timeToProto(s.Expiry)}
	if s.RotateAfter > 0 {
		out.RotateTime = timeToProto(s.Added.Add(s.RotateAfter))
	}
	return out
}
