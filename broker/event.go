package broker

import (
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Kind names an event.
type Kind string

// The events.
const (
	EventIntent    Kind = "exchange_intent" // a token request is about to be sent (audited)
	EventExchange  Kind = "exchange_result" // it ended, well or not (audited)
	EventDeliver   Kind = "deliver"         // a snapshot is about to go to the streams named (audited)
	EventState     Kind = "state"           // a variant's state changed
	EventReport    Kind = "report"          // a worker reported a rejected token
	EventOrphan    Kind = "orphan"          // a result lost its compare and was kept apart
	EventCommitErr Kind = "commit_error"    // a rotated refresh token can't be stored yet: it is held in memory and retried
	EventTampered  Kind = "tampered"        // a sealed record did not open
	EventExpiring  Kind = "expiring"        // what the grant lives on ends at Expiry, in 30, 7 or 1 day, and using it does not help
	EventSecret    Kind = "secret_expiring" // a secret, key or certificate of Client is due at Expiry, in 30, 7 or 1 day
	EventClockSkew Kind = "clock_skew"      // our clock and Provider's differ by Skew
	EventRevoked   Kind = "revoke_result"   // what the provider made of it (audited)
	EventAdopted   Kind = "adopted"         // a consent or an import brought a token (audited)
	EventForgotten Kind = "forgotten"       // a credential's variant is gone: deleted, or unused
)

// Event is something that happened. It never holds a token or a secret.
type Event struct {
	Kind       Kind
	Credential string
	Provider   string
	Client     string // OAuth client
	Grant      tokenbroker.GrantType
	Variant    tokenbroker.Variant
	Own        bool // the variant is that of the credential's own scopes, subject and audience
	Attempt    string
	Order      tokenbroker.Order
	Serial     uint64
	State      tokenbroker.State
	Class      tokenbroker.Class // of a failed exchange; "" if it went well
	Code       string            // RFC 6749 error or ours, e.g. store_unavailable, superseded, tampered
	HTTPStatus int
	Expiry     time.Time     // of the token, if there is one; of the refresh token where that is what it tells of
	TokenMAC   string        // what Config.MAC made of that token
	Same       bool          // the exchange brought the token that was there already
	Granted    []string      // scopes that it has, as far as is known
	Next       time.Time     // of a failed exchange: when the broker tries again by itself; zero if it does not
	Took       time.Duration // of the exchange
	Waiters    int           // callers who wait for the exchange
	Streams    []uint64      // of a delivery
	Holder     string        // identity of a report
	Refreshed  bool          // the report led to an exchange

	Cause       tokenbroker.Cause   // what is behind Code
	Skew        time.Duration       // how far our clock is ahead of Provider's
	SecretID    string              // of an OAuth client's secret, key or certificate
	Fingerprint string              // of the same
	Holds       tokenbroker.Holding // what the grant lives on
	Revocation  RevokeOutcome       // of a revocation
}
