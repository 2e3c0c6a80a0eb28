package consent

import (
	"context"
	"iter"
	"net/url"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

// Records keeps consents, durably. Its errors wrap sentinels of package tokenbroker.
type Records interface {
	// Consent reads one; ErrConsentNotFound if it is not there.
	Consent(ctx context.Context, id string) (tokenbroker.Consent, error)
	// Consents reads all. ErrTampered is about one, and the rest follows.
	Consents(ctx context.Context) iter.Seq2[tokenbroker.Consent, error]
	// PutConsent adds (version 0) or replaces one that still has that version; ErrETagMismatch if it has not.
	PutConsent(ctx context.Context, c tokenbroker.Consent, version uint64) (tokenbroker.Consent, error)
	// DeleteConsent removes one.
	DeleteConsent(ctx context.Context, id string) error
}

// Configuration reads what consents are for.
type Configuration interface {
	// Load reads a credential and its grant.
	Load(ctx context.Context, name string) (tokenbroker.Credential, tokenbroker.Grant, error)
	// Client reads an OAuth client with its secrets.
	Client(ctx context.Context, name string) (tokenbroker.OAuthClient, error)
}

// Engine takes up what consents bring.
type Engine interface {
	// Adopt gives a credential what it lives on from now on; ErrNotFound if the credential is not the one of a.UID any more.
	Adopt(ctx context.Context, a tokenbroker.Adoption) error
	// Trial refreshes a credential and says how it went, in a state or a code; "" if it may not be tried now.
	Trial(ctx context.Context, credential string) string
}

// Codes is the provider's side of the authorization code grant. Errors of requests are *tokenbroker.Failure.
type Codes interface {
	// AuthorizationURL is where the person goes.
	AuthorizationURL(r tokenbroker.AuthorizationRequest) (string, error)
	// Redeem sends a code, at most once.
	Redeem(ctx context.Context, r tokenbroker.CodeRequest) (tokenbroker.ExchangeReply, error)
	// Revoke ends a token. Its failure has the class configuration and is unsent where the provider offers no way.
	Revoke(ctx context.Context, r tokenbroker.RevokeRequest) error
	// CheckCallback judges a callback: that it comes from the provider, and says yes. A failure that is not Sent is a callback of somebody
	// else's making; one that is, is the provider's answer.
	CheckCallback(provider string, q url.Values) error
}

// Devices is the provider's side of the device grant. Errors of requests are *tokenbroker.Failure.
type Devices interface {
	// StartDevice asks for a device code.
	StartDevice(ctx context.Context, r tokenbroker.DeviceRequest) (tokenbroker.DeviceAuthorization, error)
	// PollDevice asks whether it was consented to.
	PollDevice(ctx context.Context, r tokenbroker.DevicePoll) (tokenbroker.ExchangeReply, error)
}

// Profiles gives what is known of a provider; false for an unknown one.
type Profiles func(name string) (provider.Profile, bool)
