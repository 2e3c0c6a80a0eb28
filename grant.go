package tokenbroker

import (
	"strings"
	"time"
)

// Holding says what Grant.RefreshToken holds.
type Holding string

// The holdings.
const (
	HoldsNothing      Holding = "none"          // the OAuth client is all that the grant needs
	HoldsRefreshToken Holding = ""              // a refresh token; the default
	HoldsToken        Holding = "token"         // GrantStatic: the token itself
	HoldsPassword     Holding = "password"      // GrantPassword, until a refresh token takes its place
	HoldsSubjectToken Holding = "subject_token" // GrantTokenExchange (RFC 8693 §2.1)
)

// Grant is the durable state that the engine keeps of a credential, under a key of its own so that no edit of the
// credential can lose it.
type Grant struct {
	UID          string    // the credential's; another one means that the name was re-created
	Serial       uint64    // rises with each refresh token stored; 0 = none yet
	RefreshToken Secret    // what the grant lives on, see Holds; zero for grants that have nothing of the kind
	Holds        Holding   // what RefreshToken is
	Account      string    // whose account it is, as the provider names it; "" = not known
	Granted      []string  // scopes that the grant was last given, as far as the provider said; nil = as asked
	Previous     Secret    // the refresh token before this one, kept for recovery
	Rotated      time.Time // when RefreshToken took Previous's place
	Consented    time.Time // when the grant came in: create, import or consent; AbsoluteLife counts from here
	Exercised    time.Time // when RefreshToken was last used or came in; IdleLife counts from here
	RefreshEnd   time.Time // when RefreshToken dies, if the provider said so; zero = it did not
	Prolonged    time.Time // when RefreshEnd was last moved to a later time: what a provider gives anew with each use moves on
	State        State     // PENDING, READY, REAUTHORIZE, MISCONFIGURED, UNCERTAIN or QUARANTINED
	Code         string    // why, an error code; "" when READY
	Cause        Cause     // what is behind Code, where more is known
	Since        time.Time // when State was entered
	Strikes      int       // consecutive invalid_grant
	SecretID     string    // the client secret that worked last
	LastUse      time.Time // when a worker last got a token of it, as of the last write
	Intent       *Intent   // set while the refresh token may be in flight
	Revoking     *Revoking // set while the provider has yet to end what was revoked here
}

// Lives reports whether there is something that the grant lives on, besides its OAuth client.
func (g Grant) Lives() bool { return g.Serial > 0 && g.Holds != HoldsNothing }

// Revoking is a revocation on its way to the provider: what is to be ended there, and how far that came.
type Revoking struct {
	Tokens []Doomed  // what is to be ended, what ends the most first
	Until  time.Time // when the last access token that the grant had ends by itself; zero = it had none
	Begun  time.Time
	Tries  int
	Next   time.Time // when to try again
	Code   string    // why the last try did not get through
}

// Doomed is a token that is to be revoked.
type Doomed struct {
	Kind  TokenKind
	Token Secret
}

// Intent says that a refresh token is being spent. It is durable before the request is sent.
type Intent struct {
	Attempt   string    // unique
	Serial    uint64    // of the refresh token sent
	TokenHash []byte    // keyed hash of that refresh token
	Variant   Variant   // on whose behalf
	Begun     time.Time // of the first send of this refresh token; a replay keeps it
	Sends     int       // how often it was sent
}

// Begin asks the store to write an intent.
type Begin struct {
	Credential string
	UID        string
	Serial     uint64 // what the engine believes is current
	Attempt    string
	Variant    Variant
	Time       time.Time
	Replay     bool // an intent of this serial may stand: send the same refresh token again
}

// Outcome is what an exchange brought, to be made durable before anyone sees it.
type Outcome struct {
	Credential   string
	UID          string
	Attempt      string    // whose intent this clears; "" if none was written
	Serial       uint64    // the serial that was spent; what the commit is compared on
	Time         time.Time // when the reply was in
	Variant      Variant
	Token        *Token    // nil if only a refresh token came
	SameToken    bool      // Token is the one already stored: keeps its generation
	RefreshToken Secret    // zero = keep the one there is; another one is a refresh token whatever the grant held before
	RefreshEnd   time.Time // when the refresh token dies, if the provider said so
	Account      string    // whose account it is, if the reply said so and nobody did before
	Granted      []string  // scopes that the grant has, if the reply said so; nil leaves them
	SecretID     string    // client secret that worked
	LastUse      time.Time
}

// Verdict is what a failed exchange means for the grant.
type Verdict struct {
	Credential  string
	UID         string
	Serial      uint64 // the serial that was spent; nothing is changed if another one is current by now
	Attempt     string // whose intent this is about; "" if none
	ClearIntent bool   // the refresh token is certainly not spent
	State       State
	Code        string
	Cause       Cause
	Strikes     int
	Time        time.Time
}

// Adoption is what an existing credential lives on from now on: an import or a consent. It brings a refresh token (or what else
// the grant holds), an access token, or both: not every provider gives a refresh token.
type Adoption struct {
	Credential   string
	UID          string
	RefreshToken Secret    // zero if the consent brought an access token alone, which is then all that there is
	Holds        Holding   // what RefreshToken is
	RefreshEnd   time.Time // when it dies, if that is known
	Token        *Token    // the access token that came with it, of the credential's own variant; nil = none
	Variant      Variant   // of Token
	Account      string    // whose account it is; "" = not known, which a Token alone leaves as it was
	Granted      []string  // scopes that were granted, if the provider said so
	SecretID     string    // the client secret that worked, if one was used
	Time         time.Time
}

// Summary is the small sealed record per credential that is read at start: enough to know what there is and when to look
// at it, and nothing that could be used.
type Summary struct {
	Name     string
	UID      string
	Provider string
	Source   string // credential whose access token is the subject token; "" = none
	State    State
	Disabled bool
	Expiry   time.Time // of the newest access token; zero = none
	Exercise time.Time // when the refresh token should next be used to keep it alive; zero = never
}

// OfAnother reports whether an account is known to be another one than the grant's. Names are compared without regard to case.
func (g Grant) OfAnother(account string) bool {
	return account != "" && g.Account != "" && !strings.EqualFold(account, g.Account)
}
