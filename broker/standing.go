package broker

import (
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// standing is how a variant stands, and why.
type standing struct {
	state tokenbroker.State
	code  string
	cause tokenbroker.Cause
}

func (s *Snapshot) standing() standing { return standing{s.State, s.Code, s.Cause} }

// recovery is what somebody has to do. What was never consented to never had a token, and waiting does not bring one.
func (s standing) recovery() tokenbroker.Recovery {
	if s.code == codeConsentNeeded && s.state == tokenbroker.StatePending {
		return tokenbroker.RecoveryReauthorize
	}
	return s.state.Recovery()
}

// standingOf says how a variant stands. e.mu is held.
func standingOf(v *variant, now time.Time) standing {
	e := v.e
	kept := standing{e.grant.State, e.grant.Code, e.grant.Cause}
	switch e.grant.State {
	case tokenbroker.StateQuarantined:
		return kept
	case tokenbroker.StateReauthorize, tokenbroker.StateMisconfigured, tokenbroker.StateUncertain:
		if !e.cred.Disabled {
			return kept
		}
	case tokenbroker.StatePending, tokenbroker.StateReady, tokenbroker.StateDegraded, tokenbroker.StateDisabled:
	}
	if e.cred.Disabled {
		return standing{state: tokenbroker.StateDisabled}
	}
	if lacking := e.lacking(now); lacking != "" {
		return unfed(v, lacking, now)
	}
	switch {
	case now.Before(v.refusedTill):
		return standing{tokenbroker.StateMisconfigured, v.code, v.cause}
	case v.token == nil:
		return standing{tokenbroker.StatePending, v.code, v.cause}
	case v.failures > 0:
		return standing{tokenbroker.StateDegraded, v.code, v.cause}
	}
	return standing{state: tokenbroker.StateReady}
}

// unfed is how a variant stands whose grant has nothing to live on: good as long as its token is. e.mu is held.
func unfed(v *variant, why string, now time.Time) standing {
	switch {
	case why == codeConsentNeeded:
		return standing{state: tokenbroker.StatePending, code: why}
	case v.token.usable(now):
		return standing{state: tokenbroker.StateReady}
	}
	return standing{state: tokenbroker.StateReauthorize, code: why}
}

// ownAdvice is what to do about codes of the engine's own, where Config.Advice knows nothing better.
func ownAdvice(code string) string {
	switch code {
	case codeConsentNeeded:
		return "Nobody has consented yet. Connect it: tokenctl connect, or import what its grant lives on."
	case codeNoRefreshToken:
		return "The consent brought no refresh token, so its access token can't be renewed. Connect it again, asking for offline access if the provider has that."
	case codeSecretExpired, codeTokenExpired:
		return "What the credential lives on has reached the end that was given with it. Import the next one."
	case codeRevoked:
		return "It was revoked here. Connect it again, or import what its grant lives on; a grant that lives on its OAuth client alone comes back with a refresh."
	}
	return ""
}

// advise says what to do about an error code of a credential of a grant.
func (b *Broker) advise(code string, cause tokenbroker.Cause, grant tokenbroker.GrantType) string {
	if code == "" {
		return ""
	}
	if b.cfg.Advice != nil {
		if s := b.cfg.Advice(code, cause, grant); s != "" {
			return s
		}
	}
	return ownAdvice(code)
}

// why is problem with what is behind the code, and with what to do about it where waiting does not help.
func (e *entry) why(sentinel error, code string, cause tokenbroker.Cause, retryAfter time.Duration) error {
	p := &tokenbroker.Problem{Err: sentinel, RetryAfter: retryAfter, Metadata: map[string]string{}}
	if code != "" {
		p.Detail, p.Metadata["code"] = code, code
	}
	if cause != "" {
		p.Metadata["cause"] = string(cause)
	}
	kind, ok := e.kind.Load().(tokenbroker.GrantType)
	if ok && errors.Is(sentinel, tokenbroker.ErrReauthorize) {
		p.Metadata["grantType"] = string(kind) // how to consent again depends on it
	}
	bare := errors.Is(sentinel, tokenbroker.ErrReauthorize) && code == "invalid_grant" && cause == "" // of which the grant tells the way out
	if !bare && (errors.Is(sentinel, tokenbroker.ErrReauthorize) || errors.Is(sentinel, tokenbroker.ErrMisconfigured)) {
		if advice := e.advise(code, cause, kind); advice != "" {
			p.Detail += ": " + advice
		}
	}
	return p
}
