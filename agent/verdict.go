package agent

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tokenbroker/tokenbroker"
)

// domain is that of the broker's errors: those of an agent are the same.
const domain = "github.com/tokenbroker/tokenbroker"

// errInternal is what a job is told of a fault of the agent. The agent's log says more.
var errInternal = errors.New("a fault of the agent, of which its log says more")

// origin is what the details of an agent's own errors name: those that it passes on name none.
const origin = "agent"

// own are the errors that an agent makes itself. All others come from the broker with a status, which is passed on as it is.
var own = []struct {
	err      error
	code     codes.Code
	reason   string
	recovery tokenbroker.Recovery
}{
	{tokenbroker.ErrInvalidArgument, codes.InvalidArgument, "FIELD_VIOLATION", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrNotFound, codes.NotFound, "CREDENTIAL_NOT_FOUND", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrNotAllowed, codes.PermissionDenied, "CALLER_NOT_ALLOWED", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrScopeNotAllowed, codes.PermissionDenied, "SCOPE_NOT_ALLOWED", tokenbroker.RecoveryAskOperator},
	{tokenbroker.ErrNotHanded, codes.FailedPrecondition, "GENERATION_NOT_HANDED", tokenbroker.RecoveryFixConfiguration},
	{tokenbroker.ErrTooMany, codes.ResourceExhausted, "TOO_MANY", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrAuditUnavailable, codes.Unavailable, "AUDIT_UNAVAILABLE", tokenbroker.RecoveryRetry},
	{tokenbroker.ErrDraining, codes.Unavailable, "SHUTTING_DOWN", tokenbroker.RecoveryRetry},
	{errInternal, codes.Internal, "INTERNAL", tokenbroker.RecoveryRetry},
	{errCertificate, codes.Unauthenticated, "CERTIFICATE_EXPIRED", tokenbroker.RecoveryAskOperator},
	{errUnreachable, codes.Unavailable, "TRANSPORT", tokenbroker.RecoveryRetry},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED", tokenbroker.RecoveryRetry},
	{context.Canceled, codes.Canceled, "CANCELED", tokenbroker.RecoveryNone},
}

// retrySoon is when to ask again where nobody knows.
const retrySoon = time.Second

// statusOf is an error as the broker would say it; nil for none.
func statusOf(err error) *status.Status {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok && reasonOf(st) != "" && st.Code() != codes.Unauthenticated {
		return st
	}
	for _, o := range own {
		if errors.Is(err, o.err) {
			return dress(o.code, err, o.err, o.reason, o.recovery)
		}
	}
	return dress(codes.Unavailable, errUnreachable, errUnreachable, "TRANSPORT", tokenbroker.RecoveryRetry)
}

func dress(code codes.Code, err, sentinel error, reason string, recovery tokenbroker.Recovery) *status.Status {
	text, details := sentinel.Error(), []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: domain,
		Metadata: map[string]string{"recoveryAction": string(recovery), "origin": origin}}}
	var after time.Duration
	if u, ok := errors.AsType[*unserved](err); ok {
		text = u.text
	}
	if sentinel == tokenbroker.ErrAuditUnavailable { //nolint:errorlint // it is a row of the table
		text = unrecorded
	}
	if p, ok := errors.AsType[*tokenbroker.Problem](err); ok {
		text, after = p.Error(), p.RetryAfter
		if p.Field != "" {
			details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: p.Field, Description: p.Detail, Reason: "INVALID"}}})
		}
	}
	if code == codes.Unavailable || code == codes.ResourceExhausted {
		after = cmp.Or(after, retrySoon)
	}
	if after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	st := status.New(code, text)
	if dressed, err := st.WithDetails(details...); err == nil {
		return dressed
	}
	return st
}

// infoOf is the ErrorInfo of a status; nil if there is none.
func infoOf(st *status.Status) *errdetails.ErrorInfo {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}

func reasonOf(st *status.Status) string { return infoOf(st).GetReason() }

// codeOf is what a record says of how a call ended.
func codeOf(err error) string {
	if err == nil {
		return "OK"
	}
	return reasonOf(statusOf(err))
}

// retryOf is when to ask again; 0 if that does not help.
func retryOf(st *status.Status) time.Duration {
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
