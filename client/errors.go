package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
)

// reasons is the inverse of the server's error table.
var reasons = map[string]error{
	"FIELD_VIOLATION":           tokenbroker.ErrInvalidArgument,
	"UNKNOWN_PROVIDER":          tokenbroker.ErrUnknownProvider,
	"CREDENTIAL_NOT_FOUND":      tokenbroker.ErrNotFound,
	"OAUTH_CLIENT_NOT_FOUND":    tokenbroker.ErrClientNotFound,
	"ALREADY_EXISTS":            tokenbroker.ErrAlreadyExists,
	"ETAG_MISMATCH":             tokenbroker.ErrETagMismatch,
	"IN_USE":                    tokenbroker.ErrInUse,
	"CALLER_NOT_ALLOWED":        tokenbroker.ErrNotAllowed,
	"SCOPE_NOT_ALLOWED":         tokenbroker.ErrScopeNotAllowed,
	"SCOPE_NOT_GRANTED":         tokenbroker.ErrScopeNotGranted,
	"GRANTED_SCOPES_TOO_WIDE":   tokenbroker.ErrScopesTooWide,
	"GRANT_NOT_SUPPORTED":       tokenbroker.ErrGrantNotSupported,
	"REAUTHORIZATION_REQUIRED":  tokenbroker.ErrReauthorize,
	"CREDENTIAL_MISCONFIGURED":  tokenbroker.ErrMisconfigured,
	"CREDENTIAL_DISABLED":       tokenbroker.ErrDisabled,
	"CREDENTIAL_QUARANTINED":    tokenbroker.ErrQuarantined,
	"MIN_VALIDITY_UNATTAINABLE": tokenbroker.ErrMinValidity,
	"GENERATION_NOT_HANDED":     tokenbroker.ErrNotHanded,
	"CONSENT_NOT_FOUND":         tokenbroker.ErrConsentNotFound,
	"CONSENT_ENDED":             tokenbroker.ErrConsentEnded,
	"ACCOUNT_MISMATCH":          tokenbroker.ErrAccountMismatch,
	"CONSENT_NOT_OFFERED":       tokenbroker.ErrConsentNotOffered,
	"AUDIT_UNAVAILABLE":         tokenbroker.ErrAuditUnavailable,
	"STORE_UNAVAILABLE":         tokenbroker.ErrStoreUnavailable,
	"SHUTTING_DOWN":             tokenbroker.ErrDraining,
	"CREDENTIAL_UNCERTAIN":      tokenbroker.ErrUncertain,
	"REFRESH_IN_BACKOFF":        tokenbroker.ErrBackoff,
	"UPSTREAM_UNAVAILABLE":      tokenbroker.ErrUpstream,
	"UPSTREAM_RATE_LIMITED":     tokenbroker.ErrThrottled,
	"TOO_MANY":                  tokenbroker.ErrTooMany,
}

// fromStatus turns a gRPC error into one of package tokenbroker, with what its details say. One that is not the broker's stays a gRPC
// error.
func fromStatus(err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	p := &tokenbroker.Problem{Detail: st.Message()}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			p.Err, p.Metadata = reasons[d.GetReason()], d.GetMetadata()
		case *errdetails.RetryInfo:
			p.RetryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			if v := d.GetFieldViolations(); len(v) > 0 {
				p.Field = v[0].GetField()
			}
		}
	}
	if p.Err == nil {
		return unreached(err)
	}
	return &told{p, st}
}

// unreached is an error that no broker made.
func unreached(err error) error {
	if strings.Contains(status.Convert(err).Message(), "dial unix") { // grpc has it in prose only
		return fmt.Errorf("ask the agent (does tokenctl agent run?): %w", err)
	}
	return fmt.Errorf("ask the broker: %w", err)
}

// reasonOf is the reason that a status names; "" if it is not the broker's.
func reasonOf(st *status.Status) string {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// told is a Problem with the status that it came as, for those who pass it on.
type told struct {
	*tokenbroker.Problem
	status *status.Status
}

// Unwrap gives the Problem.
func (t *told) Unwrap() error { return t.Problem }

// GRPCStatus is what package status asks for.
func (t *told) GRPCStatus() *status.Status { return t.status }

// unanswered reports whether an error says nothing against the token that is held: the broker or the provider can't be reached, or asks
// to wait.
func unanswered(err error) bool {
	if p, ok := errors.AsType[*tokenbroker.Problem](err); ok {
		return p.RetryAfter > 0
	}
	switch status.Code(errors.Unwrap(err)) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown, codes.Unauthenticated:
		return true
	default:
		return false
	}
}

// refused reports whether the broker gives no token of this kind to this identity, whatever it gave before.
func refused(err error) bool {
	for _, one := range []error{tokenbroker.ErrNotFound, tokenbroker.ErrNotAllowed, tokenbroker.ErrScopeNotAllowed, tokenbroker.ErrScopesTooWide, tokenbroker.ErrScopeNotGranted,
		tokenbroker.ErrDisabled, tokenbroker.ErrQuarantined} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// upTo is a random part of d.
func upTo(d time.Duration) time.Duration { return time.Duration(rand.Float64() * float64(d)) }

// jitter is how long to wait after n failures in a row: full jitter, from 100 ms doubling to 30 s.
func jitter(n int) time.Duration {
	return upTo(min(30*time.Second, 100*time.Millisecond<<min(n, 10)))
}
