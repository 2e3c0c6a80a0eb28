package tokenbroker

import (
	"slices"
	"time"
)

// ConsentFlow is the way of a consent.
type ConsentFlow string

// The ways of a consent.
const (
	FlowLoopback ConsentFlow = "loopback" // a browser beside the caller, who catches the redirect (RFC 8252 §7.3)
	FlowPaste    ConsentFlow = "paste"    // a browser anywhere; a person brings the URL that it was redirected to
	FlowDevice   ConsentFlow = "device"   // a code to type in on another device (RFC 8628)
	FlowLink     ConsentFlow = "link"     // a one-time link to the broker's own page
)

// ConsentState says how a consent stands.
type ConsentState string

// The states of a consent.
const (
	ConsentPending   ConsentState = "PENDING"             // nobody has consented yet
	ConsentAwaiting  ConsentState = "AWAITING_ACCEPTANCE" // somebody consented by a link; an operator has to accept the account
	ConsentDone      ConsentState = "DONE"                // the credential has the grant
	ConsentDenied    ConsentState = "DENIED"              // the person, or the provider, said no
	ConsentExpired   ConsentState = "EXPIRED"             // its time is over
	ConsentFailed    ConsentState = "FAILED"              // it could not be redeemed; Code says why
	ConsentCancelled ConsentState = "CANCELLED"           // an operator ended it
)

// Over reports whether nothing can come of a consent any more, or everything did.
func (s ConsentState) Over() bool { return s != ConsentPending && s != ConsentAwaiting }

// ConsentStep says what the broker is about to do for a consent, so that a restart finds what was cut short. It is durable before it is done.
type ConsentStep string

// The steps.
const (
	StepNone      ConsentStep = ""          // it waits for somebody
	StepRedeeming ConsentStep = "redeeming" // the code was, or is about to be, sent: it is used
	StepAdopting  ConsentStep = "adopting"  // Grant is on its way into the credential
	StepRevoking  ConsentStep = "revoking"  // Grant is to be ended at the provider
)

// Consent is one consent, from its beginning until a while after its end.
type Consent struct {
	ID              string // made by the broker; no capability
	Credential      string
	UID             string // the credential's: a re-created name is another credential
	Provider        string // the credential's, also once it is deleted
	Client          string // name of its OAuth client
	Flow            ConsentFlow
	State           ConsentState
	Code            string   // why, where it went wrong: an error code of the provider or one of the broker's own
	Advice          string   // what to do about Code; made up when it is read, not stored
	BegunBy         string   // identity that began it
	Scopes          []string // that are asked for
	RedirectURI     string   // the same in both legs; "" for FlowDevice
	ExpectedAccount string   // "" = any
	ReplaceAccount  bool     // ExpectedAccount may take the place of the one that the credential knows
	Account         string   // that consented, as the provider names it; "" = nobody did, or it does not say
	Granted         []string // nil = the provider did not say, or nobody consented
	Missing         []string // asked for and not granted
	Trial           string   // how the trial refresh went: a state or a code; "" = there was none
	Created         time.Time
	Expiry          time.Time
	Ended           time.Time // zero = it has not
	Version         uint64    // rises with each write; what a write is compared on

	Step        ConsentStep
	StepTime    time.Time // when Step was entered
	State256    []byte    // SHA-256 of the state parameter; nil = none is out
	StateExpiry time.Time // when the state parameter is over
	Link256     []byte    // FlowLink: SHA-256 of the link's secret
	Browser256  []byte    // FlowLink: SHA-256 of the cookie of the browser that pressed the button; nil = none did
	Verifier    Secret    // PKCE (RFC 7636 §4.1)
	Nonce       string
	DeviceCode  Secret        // FlowDevice
	Interval    time.Duration // FlowDevice: at least this long between polls
	Grant       *Adoption     // what was granted, until it is adopted or revoked
}

// Lacks are the scopes that were asked for and not granted; none if the provider did not say what it granted.
func (c Consent) Lacks() []string {
	if c.Granted == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Scopes), func(s string) bool { return slices.Contains(c.Granted, s) })
}

// BeginConsent says what is to be consented to.
type BeginConsent struct {
	Credential      string
	Identity        string // who begins it
	Flow            ConsentFlow
	Scopes          []string // empty = the credential's own
	RedirectURI     string   // FlowLoopback, FlowPaste: the profile's, with the port filled in
	ExpectedAccount string
	ReplaceAccount  bool
}

// ConsentStart says how a consent that was begun goes on.
type ConsentStart struct {
	Consent                 Consent
	AuthorizationURL        string // FlowLoopback, FlowPaste
	Link                    Secret // FlowLink: whoever has it can consent
	UserCode                string // FlowDevice
	VerificationURI         string
	VerificationURIComplete string
}
