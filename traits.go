package tokenbroker

import "time"

// Traits are what the engine has to know about a provider. The zero value is the strictest reading but for Rotation and
// Downscopes, which no reply could be trusted to contradict in time; a profile says what is known.
type Traits struct {
	Rotates      bool          // a refresh may bring a new refresh token, so each one is spent with an intent
	Grace        time.Duration // how long after a rotation the previous refresh token still works; 0 = not at all
	KillsOld     bool          // a refresh ends the previous access token at once
	IdleLife     time.Duration // a refresh token not used for this long dies; 0 = never
	AbsoluteLife time.Duration // a refresh token dies this long after consent however much it is used; 0 = never
	Strikes      int           // consecutive invalid_grant before a grant is taken for dead; 0 means 1
	Floor        time.Duration // least time between refreshes that callers cause; 0 means 30 s. Capped at half a token's life
	LiveTokens   int           // access tokens the provider keeps alive per grant; 0 = no limit known
	DefaultLife  time.Duration // life of a token whose reply names none; 0 means 1 h
	Downscopes   bool          // a refresh may ask for fewer scopes than the grant has, and the reply says which it gave
}
