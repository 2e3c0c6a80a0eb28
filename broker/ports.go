package broker

import (
	"context"
	"iter"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Store is the durable side of the engine. All of it is safe for concurrent use; an error wraps a sentinel of package
// tokenbroker; what is returned belongs to the caller.
type Store interface {
	Grants
	Records
	Editor
	Clients
}

// Grants keeps what exchanges and revocations make of a grant.
type Grants interface {
	Journal
	Revoker
}

// Revoker makes revocations durable.
type Revoker interface {
	// Revoke takes from a credential all that could be used of it, and keeps apart what the provider has yet to end.
	Revoke(ctx context.Context, name, uid string, at time.Time) (tokenbroker.Grant, error)
	// Revoked notes how far the provider came with that; nil ends it.
	Revoked(ctx context.Context, name, uid string, r *tokenbroker.Revoking) (tokenbroker.Grant, error)
}

// Journal makes exchanges durable.
type Journal interface {
	// Prove makes a small durable write, which shows that the store can be written.
	Prove(ctx context.Context) error
	// Begin writes the intent to spend a refresh token and returns the grant that holds it.
	Begin(ctx context.Context, b tokenbroker.Begin) (tokenbroker.Grant, error)
	// Commit makes an outcome durable, compared on the serial that was spent; on a mismatch it keeps the outcome apart and
	// returns ErrSuperseded.
	Commit(ctx context.Context, o tokenbroker.Outcome) (tokenbroker.Grant, tokenbroker.Token, error)
	// Abort records what a failed exchange means, compared on the serial; on a mismatch it changes nothing and returns
	// ErrSuperseded.
	Abort(ctx context.Context, v tokenbroker.Verdict) (tokenbroker.Grant, error)
}

// Records reads credentials and their state.
type Records interface {
	// Boot counts the opens of the store; it rises with each.
	Boot() uint64
	// Summaries lists what there is, in name order.
	Summaries(ctx context.Context) iter.Seq2[tokenbroker.Summary, error]
	// Load reads one credential and its grant as of one moment.
	Load(ctx context.Context, name string) (tokenbroker.Credential, tokenbroker.Grant, error)
	// Token reads the newest token of a variant; false if it never had one.
	Token(ctx context.Context, name, uid, variantKey string) (tokenbroker.Token, bool, error)
}

// Editor changes credentials.
type Editor interface {
	// CreateCredential adds a credential with its first grant.
	CreateCredential(ctx context.Context, c tokenbroker.Credential, g tokenbroker.Grant) (tokenbroker.Credential, error)
	// UpdateCredential replaces a credential if its version still is the one given.
	UpdateCredential(ctx context.Context, c tokenbroker.Credential, version uint64) (tokenbroker.Credential, error)
	// DeleteCredential removes a credential and all its state. Version 0 stands for any.
	DeleteCredential(ctx context.Context, name string, version uint64) error
	// Adopt stores what a credential lives on from now on, and the token that came with it, if one did.
	Adopt(ctx context.Context, a tokenbroker.Adoption) (tokenbroker.Grant, tokenbroker.Token, error)
}

// Clients keeps OAuth clients.
type Clients interface {
	// Client reads one OAuth client with its secrets.
	Client(ctx context.Context, name string) (tokenbroker.OAuthClient, error)
	// Clients lists OAuth clients in name order, from after the name given.
	Clients(ctx context.Context, after string, limit int) ([]tokenbroker.OAuthClient, error)
	// PutClient creates (version 0) or replaces an OAuth client.
	PutClient(ctx context.Context, c tokenbroker.OAuthClient, version uint64) (tokenbroker.OAuthClient, error)
	// DeleteClient removes an OAuth client.
	DeleteClient(ctx context.Context, name string, version uint64) error
}

// Upstream talks to providers. All of it is safe for concurrent use, and an error is a *tokenbroker.Failure.
type Upstream interface {
	// Exchange sends one token request, at most once. The reply may hold a refresh token together with an error, and that has to
	// be committed first.
	Exchange(ctx context.Context, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error)
	// Revoke ends one token. Its failure has the code revocation_not_supported where the provider offers no revocation of that kind
	// of token.
	Revoke(ctx context.Context, r tokenbroker.RevokeRequest) error
	// Check asks what a resource server would say of an access token. An error means that it could not be asked.
	Check(ctx context.Context, r tokenbroker.CheckRequest) (tokenbroker.CheckReply, error)
}

// Judge knows what grants and providers allow. It does no I/O; its errors are tokenbroker.Problem values with the field at fault.
type Judge interface {
	// Validate says what is wrong with a credential for that OAuth client, nil for one that has none.
	Validate(c tokenbroker.Credential, client *tokenbroker.OAuthClient) error
	// ValidateClient says what is wrong with an OAuth client.
	ValidateClient(c tokenbroker.OAuthClient) error
	// ParseKey reads a private key, or says what is wrong with it.
	ParseKey(k tokenbroker.NewKey) (tokenbroker.ParsedKey, error)
	// Advise says what is allowed but should be known, a sentence each.
	Advise(c tokenbroker.Credential, client *tokenbroker.OAuthClient) []string
}

// Limit is how fast one OAuth client may ask one token endpoint.
type Limit struct {
	PerSecond float64 // 0 means 100
	Burst     int     // 0 means 200
}

// Config is what a Broker needs.
type Config struct {
	Store    Store    // required
	Upstream Upstream // required
	Judge    Judge    // required

	// Traits gives what is known of a provider; false for an unknown one. Required.
	Traits func(provider string) (tokenbroker.Traits, bool)
	// Limits gives a provider's rate. Nil means the zero Limit for all.
	Limits func(provider string) Limit
	// Encode turns a snapshot into what the transport sends; it runs once per snapshot and its result rides in
	// Snapshot.Encoded. Nil leaves that nil.
	Encode func(*Snapshot) any
	// MAC is a keyed hash of an access token, by which audit records name it. It runs once per token. Nil names none.
	MAC func(tokenbroker.Secret) string
	// Audit records an event before what it speaks of happens; on an error it does not happen. Nil records nothing.
	Audit func(context.Context, Event) error
	// Observe sees every event: metrics, logs and pages hang on it. It must not block, nor call the broker, which may hold a lock
	// meanwhile. Nil means nobody looks.
	Observe func(Event)
	// Advice is what to do about an error code and its cause, in a sentence or two; "" if there is nothing to say. The way back to life depends
	// on the grant. Nil says nothing.
	Advice func(code string, cause tokenbroker.Cause, grant tokenbroker.GrantType) string
	// ExchangeTimeout bounds one exchange. 0 means 30 s.
	ExchangeTimeout time.Duration
	// MaxVariants bounds the variants alive per credential, unless a provider's traits say less. 0 means 64.
	MaxVariants int
}
