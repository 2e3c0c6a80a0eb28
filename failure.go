package tokenbroker

import (
	"fmt"
	"time"
)

// Class says what a failed token request means and so what to do about it.
type Class string

// The classes.
const (
	ClassDeadGrant     Class = "dead_grant"    // the grant was refused: revoked, expired, already rotated away
	ClassConfiguration Class = "configuration" // the provider refuses what was configured; nobody has to consent again
	ClassThrottled     Class = "throttled"     // too many requests
	ClassTransient     Class = "transient"     // certainly not processed: try again
	ClassAmbiguous     Class = "ambiguous"     // perhaps processed: the answer was lost or can't be read
	ClassClockSkew     Class = "clock_skew"    // our clock and the provider's differ too much
)

// Cause names, in a closed vocabulary of the broker, what is behind an error code: [a-z0-9_]+, e.g. "delegation_not_authorized". It is what
// is told in place of a provider's text; package explain holds the sentence for each.
type Cause string

// Failure is a token request that brought no token. It never holds a provider's text, only the RFC 6749 §5.2 error code.
type Failure struct {
	Class      Class
	Code       string        // error code of RFC 6749 §5.2 or a provider's own, cleaned; or one of ours, e.g. "timeout"
	Cause      Cause         // what is behind Code, where the reply says more than RFC 6749 does; "" = nothing more is known
	Skew       time.Duration // ClassClockSkew: how far our clock is ahead of the provider's, by its Date header; 0 = not known
	HTTPStatus int           // 0 if there was no reply
	RetryAfter time.Duration // how long the provider asked us to wait; 0 = it did not say
	Sent       bool          // bytes of the request may have reached the provider
}

// Error implements error.
func (f *Failure) Error() string {
	if f.HTTPStatus == 0 {
		return fmt.Sprintf("token endpoint: %s (%s)", f.Code, f.Class)
	}
	return fmt.Sprintf("token endpoint: %s (%s, HTTP %d)", f.Code, f.Class, f.HTTPStatus)
}

// OfVariant reports whether the failure comes of a variant's own input, so that other variants of the credential may well
// work: invalid_scope (RFC 6749 §5.2), invalid_target (RFC 8707 §2), and what package grant refuses of a variant.
func (f *Failure) OfVariant() bool {
	switch f.Code {
	case "invalid_scope", "invalid_target", "downscope_not_confirmed", "downscope_not_supported", "subject_not_supported":
		return true
	}
	return false
}
