package tokenbroker

import (
	"errors"
	"time"
)

// What callers branch on. Each has one row in the server's error table, and the client maps it back.
var (
	ErrNotFound          = errors.New("credential not found, or not for this identity")
	ErrClientNotFound    = errors.New("OAuth client not found")
	ErrAlreadyExists     = errors.New("already exists")
	ErrInvalidArgument   = errors.New("invalid argument")
	ErrETagMismatch      = errors.New("etag does not match: somebody else changed it meanwhile")
	ErrInUse             = errors.New("still in use")
	ErrNotAllowed        = errors.New("not allowed by the policy")
	ErrScopeNotAllowed   = errors.New("scopes not allowed")
	ErrScopeNotGranted   = errors.New("the provider did not grant a scope")
	ErrDisabled          = errors.New("credential is disabled")
	ErrQuarantined       = errors.New("credential is quarantined")
	ErrReauthorize       = errors.New("the grant is dead")
	ErrMisconfigured     = errors.New("the provider refuses the configuration")
	ErrUpstream          = errors.New("the provider did not give a token")
	ErrThrottled         = errors.New("the provider asks us to wait")
	ErrBackoff           = errors.New("the next refresh is not due yet")
	ErrUncertain         = errors.New("a refresh token may have been spent, recovery is under way")
	ErrMinValidity       = errors.New("no token with the validity asked for")
	ErrNotHanded         = errors.New("this identity was not handed that generation")
	ErrTooMany           = errors.New("too many")
	ErrStoreUnavailable  = errors.New("the store can't be written")
	ErrAuditUnavailable  = errors.New("the audit log can't be written")
	ErrDraining          = errors.New("the broker is shutting down")
	ErrSuperseded        = errors.New("the grant changed meanwhile")
	ErrTampered          = errors.New("a sealed record does not open")
	ErrUnknownProvider   = errors.New("unknown provider")
	ErrScopesTooWide     = errors.New("the provider gave more scopes than this identity may have")
	ErrGrantNotSupported = errors.New("the grant does not allow this")
	ErrConsentNotFound   = errors.New("consent not found, or not for this identity")
	ErrConsentEnded      = errors.New("the consent is over")
	ErrAccountMismatch   = errors.New("the account is another one")
	ErrConsentNotOffered = errors.New("that way of consent is not offered")
)

// Problem is a sentinel with what a caller needs to act on it.
type Problem struct {
	Err        error             // a sentinel of this package
	Detail     string            // what was wrong and what to do, fit for any caller who may see the credential
	Field      string            // request field at fault, in JSON names; "" if none
	RetryAfter time.Duration     // when to ask again; 0 = asking again does not help, or at will
	Metadata   map[string]string // values of Detail, apart (lowerCamel keys)
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Err.Error()
	}
	return p.Err.Error() + ": " + p.Detail
}

// Unwrap gives the sentinel.
func (p *Problem) Unwrap() error { return p.Err }

// Invalid returns a Problem for a field with a bad value.
func Invalid(field string, err error) error {
	if err == nil {
		return nil
	}
	return &Problem{Err: ErrInvalidArgument, Field: field, Detail: err.Error()}
}
