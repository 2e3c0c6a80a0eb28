package client

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// PerRPCCredentials puts a credential's token into each call of a gRPC connection, or of one call: grpc.WithPerRPCCredentials, grpc.PerRPCCredentials.
// The connection must be encrypted. The context of a call governs the wait for its token; none is kept. An error that comes of the token is one
// of package tokenbroker and a gRPC status: UNAVAILABLE if asking again may help, else UNAUTHENTICATED.
func (c *Client) PerRPCCredentials(credential string, opts ...Option) credentials.PerRPCCredentials {
	return &perRPC{c: c, credential: credential, opts: opts}
}

type perRPC struct {
	c          *Client
	credential string
	opts       []Option
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (p *perRPC) RequireTransportSecurity() bool { return true }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (p *perRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	if err := credentials.CheckSecurityLevel(info.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
		return nil, status.Error(codes.Unauthenticated, "no token is sent over a connection that is not encrypted")
	}
	tok, err := p.c.Token(ctx, p.credential, p.opts...)
	if err != nil {
		return nil, &callError{err: err}
	}
	name, value := tok.Header()
	return map[string]string{strings.ToLower(name): value}, nil
}

// callError is why a call has no token. grpc would tell of an error that has no status by its text alone.
type callError struct{ err error }

// Error implements error.
func (e *callError) Error() string { return e.err.Error() }

// Unwrap gives the error of Client.Token.
func (e *callError) Unwrap() error { return e.err }

// GRPCStatus is how grpc and status.Code see it.
func (e *callError) GRPCStatus() *status.Status {
	switch code := status.FromContextError(e.err).Code(); {
	case code == codes.Canceled || code == codes.DeadlineExceeded:
		return status.New(code, e.Error())
	case unanswered(e.err):
		return status.New(codes.Unavailable, e.Error())
	}
	return status.New(codes.Unauthenticated, e.Error())
}
