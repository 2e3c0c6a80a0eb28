package tokenbroker

// State says how a credential's variant stands. It is apart from whether a token is there: a token that is still valid is
// served whatever the state, except when an operator disabled the credential or it was restored from a backup.
type State string

// The states.
const (
	StatePending       State = "PENDING"       // never had a token
	StateReady         State = "READY"         // has a token, refreshes work
	StateDegraded      State = "DEGRADED"      // the refresh fails for now, by no fault of the credential
	StateReauthorize   State = "REAUTHORIZE"   // the grant is dead, a person has to consent again
	StateMisconfigured State = "MISCONFIGURED" // the provider refuses what was configured
	StateDisabled      State = "DISABLED"      // an operator switched it off
	StateUncertain     State = "UNCERTAIN"     // a refresh token may have been spent and its successor lost
	StateQuarantined   State = "QUARANTINED"   // restored from a backup, or its record does not open; an operator has to look
)

// Recovery is what somebody has to do. It is typed on every error, status and event.
type Recovery string

// The recovery actions.
const (
	RecoveryNone             Recovery = "NONE"              // nothing
	RecoveryRetry            Recovery = "RETRY"             // wait and ask again
	RecoveryReauthorize      Recovery = "REAUTHORIZE"       // consent again, or import a new refresh token
	RecoveryFixConfiguration Recovery = "FIX_CONFIGURATION" // correct the credential, the OAuth client or the request
	RecoveryAskOperator      Recovery = "ASK_OPERATOR"      // only an operator can change it: policy, disabled, quarantined
)

// Recovery returns what a state asks for.
func (s State) Recovery() Recovery {
	switch s {
	case StateReady:
		return RecoveryNone
	case StateReauthorize:
		return RecoveryReauthorize
	case StateMisconfigured:
		return RecoveryFixConfiguration
	case StateDisabled, StateQuarantined:
		return RecoveryAskOperator
	case StatePending, StateDegraded, StateUncertain:
	}
	return RecoveryRetry
}
