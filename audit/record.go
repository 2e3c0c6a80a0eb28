package audit

import (
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Kind says what a record is about.
type Kind string

// The kinds.
const (
	KindCallIntent     Kind = "call_intent"     // an RPC that changes something is about to run; its KindCall follows
	KindCall           Kind = "call"            // an RPC, allowed or denied, before its answer leaves
	KindExchangeIntent Kind = "exchange_intent" // a token request is about to be sent
	KindExchangeResult Kind = "exchange_result" // what it brought
	KindRevocation     Kind = "revocation"      // what a provider made of a request to end a grant
	KindDeliver        Kind = "deliver"         // a fresh token is about to be sent to the streams named
	KindStreamOpen     Kind = "stream_open"     // binds the id of a stream to an identity
	KindStreamClose    Kind = "stream_close"    // the stream ended
	KindSystem         Kind = "system"          // of the broker itself: start, policy change, a gap in the trail
	KindCheckpoint     Kind = "checkpoint"      // a signed statement of where the trail stands
)

// The actions of the records that the log writes on its own; all but the checkpoint are of kind "system".
const (
	ActionGap        = "audit.gap"        // Count callers were refused since the record above
	ActionTorn       = "audit.torn"       // the line above was left unfinished; Reason has its length and hash
	ActionDeleted    = "audit.deleted"    // the file that held the records above was deleted or cut off while it was written
	ActionCheckpoint = "audit.checkpoint" // of the kind checkpoint
)

// Decision is what the policy said.
type Decision string

// The decisions.
const (
	Allow Decision = "allow"
	Deny  Decision = "deny"
)

// Record is one line of the trail. All fields may be left empty. None may hold a secret, a token or a provider's text.
type Record struct {
	Time            time.Time              // time; the zero time means when Write was called
	Kind            Kind                   // kind
	RequestID       string                 // request_id
	Identity        string                 // identity
	Peer            string                 // peer: address of the connection
	CertFingerprint string                 // cert: SHA-256 of the peer's certificate, hex
	CertSerial      string                 // cert_serial: of the peer's certificate, hex: what a deny list names
	Action          string                 // action, in the words of package policy
	Credential      string                 // credential
	OAuthClient     string                 // oauth_client
	ScopesAsked     []string               // scopes_asked
	ScopesGranted   []string               // scopes_granted
	Subject         string                 // subject
	Audience        string                 // audience
	PolicyRevision  string                 // policy
	Rule            string                 // rule: name of the one that allowed it
	Mode            string                 // mode: "audit" if only a rule in audit mode allowed it
	Decision        Decision               // decision
	Reason          string                 // reason: why it was denied, or what happened
	Code            string                 // code: of gRPC, or the RFC 6749 §5.2 error
	Provider        string                 // provider
	Generation      tokenbroker.Generation // generation
	TokenMAC        string                 // token_mac: keyed hash of the access token
	Expiry          time.Time              // expire_time: of the token
	Serial          uint64                 // serial: of the refresh token
	Streams         []uint64               // streams: ids of the streams of one fan-out
	Count           uint64                 // count: how many this record stands for, where it sums up
	Latency         time.Duration          // latency_us: microseconds from the request to this record

	prepared []byte // see Prepare
}
