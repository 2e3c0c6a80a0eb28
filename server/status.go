package server

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
)

// Domain is the domain of every ErrorInfo.
const Domain = "github.com/tokenbroker/tokenbroker"

// Errors of the surface itself.
var (
	errNoCertificate      = errors.New("no client certificate with an identity")
	errCertificateExpired = errors.New("the client certificate has expired")
	errCertificateDenied  = errors.New("the client certificate was denied")
	errUntrusted          = errors.New("the client certificate is not trusted any more")
	errSlowReader         = errors.New("the reader was blocked for too long")
	errUnknownMethod      = errors.New("unknown method")
)

// row is what an error becomes on the wire.
type row struct {
	err      error
	code     codes.Code
	reason   string
	recovery tokenbroker.Recovery
}

// table maps errors to the wire, first match first. It is the only place that does.
var table = []row{
	{tokenbroker.ErrInvalidArgument, codes.InvalidArgument, "FIELD_VIOLATION", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrUnknownProvider, codes.InvalidArgument, "UNKNOWN_PROVIDER", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrNotFound, codes.NotFound, "CREDENTIAL_NOT_FOUND", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrClientNotFound, codes.NotFound, "OAUTH_CLIENT_NOT_FOUND", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrAlreadyExists, codes.AlreadyExists, "ALREADY_EXISTS", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrETagMismatch, codes.Aborted, "ETAG_MISMATCH", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrInUse, codes.FailedPrecondition, "IN_USE", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrNotAllowed, codes.PermissionDenied, "CALLER_NOT_ALLOWED", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrScopeNotAllowed, codes.PermissionDenied, "SCOPE_NOT_ALLOWED", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrScopeNotGranted, codes.FailedPrecondition, "SCOPE_NOT_GRANTED", tokenbroker.RecoveryReauthorize},
	{tokenbroker.ErrScopesTooWide, codes.FailedPrecondition, "GRANTED_SCOPES_TOO_WIDE", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrGrantNotSupported, codes.FailedPrecondition, "GRANT_NOT_SUPPORTED", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrReauthorize, codes.FailedPrecondition, "REAUTHORIZATION_REQUIRED", tokenbroker.RecoveryReauthorize},
	{tokenbroker.ErrMisconfigured, codes.FailedPrecondition, "CREDENTIAL_MISCONFIGURED", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrDisabled, codes.FailedPrecondition, "CREDENTIAL_DISABLED", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrQuarantined, codes.FailedPrecondition, "CREDENTIAL_QUARANTINED", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrTampered, codes.FailedPrecondition, "CREDENTIAL_QUARANTINED", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrMinValidity, codes.FailedPrecondition, "MIN_VALIDITY_UNATTAINABLE", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrNotHanded, codes.FailedPrecondition, "GENERATION_NOT_HANDED", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrConsentNotFound, codes.NotFound, "CONSENT_NOT_FOUND", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrConsentEnded, codes.FailedPrecondition, "CONSENT_ENDED", tokenbroker.RecoveryReauthorize},
	{tokenbroker.ErrAccountMismatch, codes.FailedPrecondition, "ACCOUNT_MISMATCH", tokenbroker.RecoveryReauthorize},
	{tokenbroker.ErrConsentNotOffered, codes.FailedPrecondition, "CONSENT_NOT_OFFERED", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrAuditUnavailable, codes.Unavailable, "AUDIT_UNAVAILABLE", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrStoreUnavailable, codes.Unavailable, "STORE_UNAVAILABLE", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrDraining, codes.Unavailable, "SHUTTING_DOWN", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrUncertain, codes.Unavailable, "CREDENTIAL_UNCERTAIN", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrSuperseded, codes.Unavailable, "UPSTREAM_UNAVAILABLE", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrBackoff, codes.Unavailable, "REFRESH_IN_BACKOFF", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrUpstream, codes.Unavailable, "UPSTREAM_UNAVAILABLE", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrThrottled, codes.ResourceExhausted, "UPSTREAM_RATE_LIMITED", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrTooMany, codes.ResourceExhausted, "TOO_MANY", tokenbroker.RecoveryRetry},
	{errNoCertificate, codes.Unauthenticated, "NO_CLIENT_CERTIFICATE", tokenbroker.RecoveryFixConfiguration},
	{errCertificateExpired, codes.Unauthenticated, "CERTIFICATE_EXPIRED", tokenbroker.RecoveryFixConfiguration},
	{errCertificateDenied, codes.Unauthenticated, "CERTIFICATE_DENIED", tokenbroker.RecoveryAskOperator},
	{errUntrusted, codes.Unauthenticated, "CERTIFICATE_UNTRUSTED", tokenbroker.RecoveryFixConfiguration},
	{errSlowReader, codes.ResourceExhausted, "SLOW_READER", tokenbroker.RecoveryRetry},
	{errUnknownMethod, codes.Unimplemented, "UNKNOWN_METHOD", tokenbroker.RecoveryFixConfiguration},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED", tokenbroker.RecoveryRetry},
	{context.Canceled, codes.Canceled, "CANCELED", tokenbroker.RecoveryNone},
}

// retrySoon is what RetryInfo says where waiting helps and nobody knows how long.
const retrySoon = time.Second

// rowOf finds an error's row.
func rowOf(err error) (row, bool) {
	for _, r := range table {
		if errors.Is(err, r.err) {
			return r, true
		}
	}
	return row{code: codes.Internal, reason: "INTERNAL", recovery: tokenbroker.RecoveryRetry}, false
}

// codeOf is what a record says of how a call ended.
func codeOf(err error) string {
	if err == nil {
		return "OK"
	}
	r, _ := rowOf(err)
	return r.reason
}

// within prefixes the fields that an error's problems name.
func within(prefix string, err error) error {
	walk(err, func(p *tokenbroker.Problem) {
		inner := *p
		inner.Field = prefix + p.Field
		err = &inner
	})
	return err
}

// toStatus turns an error into what the client sees. A status of grpc itself stays as it is, with an ErrorInfo.
func toStatus(log *slog.Logger, err error) error {
	if err == nil {
		return nil
	}
	r, known := rowOf(err)
	if st, ok := status.FromError(err); ok && !known {
		if st.Code() == codes.ResourceExhausted { // the rate limiter's; it can't carry ours
			return toStatus(log, &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "calls of this identity", RetryAfter: retrySoon})
		}
		return dress(status.New(st.Code(), st.Message()), info(row{reason: "TRANSPORT", recovery: tokenbroker.RecoveryRetry}, nil))
	}
	if !known {
		log.Error("internal error", "error", err)
	}
	p := problemOf(err)
	details := []protoadapt.MessageV1{info(r, p)}
	if after := retryAfter(r, p); after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	if v := violations(err); len(v) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: v})
	}
	return dress(status.New(r.code, textOf(r, err)), details...)
}

// textOf is what the client reads: the sentinel's words and those of problems, which are written for callers. What else is wrapped around
// them, such as a path, is not.
func textOf(r row, err error) string {
	if r.err == nil {
		return "internal error; the broker's log says more"
	}
	var texts []string
	walk(err, func(p *tokenbroker.Problem) {
		if errors.Is(p, r.err) {
			texts = append(texts, p.Error())
		}
	})
	if len(texts) == 0 {
		return r.err.Error()
	}
	return strings.Join(texts, "; ")
}

func dress(st *status.Status, details ...protoadapt.MessageV1) error {
	if dressed, err := st.WithDetails(details...); err == nil {
		st = dressed
	}
	return st.Err()
}

func info(r row, p *tokenbroker.Problem) *errdetails.ErrorInfo {
	meta := map[string]string{"recoveryAction": string(r.recovery)}
	if p != nil {
		maps.Copy(meta, p.Metadata)
	}
	return &errdetails.ErrorInfo{Reason: r.reason, Domain: Domain, Metadata: meta}
}

func retryAfter(r row, p *tokenbroker.Problem) time.Duration {
	if p != nil && p.RetryAfter > 0 {
		return p.RetryAfter
	}
	if r.code == codes.Unavailable || r.code == codes.ResourceExhausted {
		return retrySoon
	}
	return 0
}

func problemOf(err error) *tokenbroker.Problem {
	var p *tokenbroker.Problem
	errors.As(err, &p)
	return p
}

// violations lists the request fields at fault.
func violations(err error) []*errdetails.BadRequest_FieldViolation {
	var list []*errdetails.BadRequest_FieldViolation
	walk(err, func(p *tokenbroker.Problem) {
		if p.Field != "" {
			list = append(list, &errdetails.BadRequest_FieldViolation{Field: p.Field, Description: p.Detail, Reason: "INVALID"})
		}
	})
	return list
}

// walk visits every Problem of an error, also of joined ones.
func walk(err error, visit func(*tokenbroker.Problem)) {
	switch e := err.(type) { //nolint:errorlint // walks the tree itself
	case nil:
	case *tokenbroker.Problem:
		visit(e)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walk(inner, visit)
		}
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	}
}

func unknownMethod(any, grpc.ServerStream) error { return errUnknownMethod }
