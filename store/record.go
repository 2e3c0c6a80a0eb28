package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// payloadVersion is the version of every payload that is written. A new field raises it; what older versions wrote is read with that field
// zero. A change that older payloads can't be read through raises [Schema] too.
const payloadVersion = 3

// Payloads are JSON. Secrets are bytes, which JSON writes as base64: a string would lose what is not UTF-8. Times are UTC
// without a monotonic part. Decoding is strict: what an unknown field means is not known, so it can't be dropped.

type payload interface{ recordVersion() int }

type version struct {
	V int `json:"v"`
}

func (v version) recordVersion() int { return v.V }

// indexRecord heads the chain of one credential.
type indexRecord struct {
	version
	UID      string            `json:"uid"`
	Provider string            `json:"provider"`
	Source   string            `json:"source,omitzero"`
	State    tokenbroker.State `json:"state"`
	Disabled bool              `json:"disabled,omitzero"`
	Expiry   time.Time         `json:"expiry,omitzero"`
	Exercise time.Time         `json:"exercise,omitzero"`
	Config   uint64            `json:"config"` // record number
	Grant    uint64            `json:"grant"`  // record number
}

type credentialRecord struct {
	version
	UID        string                  `json:"uid"`
	Provider   string                  `json:"provider"`
	Client     string                  `json:"client"`
	Grant      tokenbroker.GrantType   `json:"grant"`
	Scopes     []string                `json:"scopes,omitzero"`
	Subject    string                  `json:"subject,omitzero"`
	Audience   string                  `json:"audience,omitzero"`
	Resources  []string                `json:"resources,omitzero"`
	Parameters map[string]string       `json:"parameters,omitzero"`
	Source     string                  `json:"source,omitzero"`
	Labels     map[string]string       `json:"labels,omitzero"`
	Owner      string                  `json:"owner,omitzero"`
	Disabled   bool                    `json:"disabled,omitzero"`
	Extra      tokenbroker.ExtraScopes `json:"extra_scopes,omitzero"`
	Created    time.Time               `json:"created"`
	Updated    time.Time               `json:"updated"`
	Version    uint64                  `json:"version"`
	Generation tokenbroker.Generation  `json:"generation"`
}

type grantRecord struct {
	version
	UID          string               `json:"uid"`
	Serial       uint64               `json:"serial,omitzero"`
	RefreshToken []byte               `json:"refresh_token,omitzero"`
	Holds        tokenbroker.Holding  `json:"holds,omitzero"`
	Account      string               `json:"account,omitzero"`
	Granted      []string             `json:"granted,omitzero"`
	Previous     []byte               `json:"previous,omitzero"`
	Rotated      time.Time            `json:"rotated,omitzero"`
	Consented    time.Time            `json:"consented,omitzero"`
	Exercised    time.Time            `json:"exercised,omitzero"`
	RefreshEnd   time.Time            `json:"refresh_end,omitzero"`
	Prolonged    time.Time            `json:"prolonged,omitzero"`
	State        tokenbroker.State    `json:"state"`
	Code         string               `json:"code,omitzero"`
	Cause        tokenbroker.Cause    `json:"cause,omitzero"`
	Since        time.Time            `json:"since,omitzero"`
	Strikes      int                  `json:"strikes,omitzero"`
	SecretID     string               `json:"secret_id,omitzero"`
	LastUse      time.Time            `json:"last_use,omitzero"`
	Intent       *intentRecord        `json:"intent,omitzero"`
	Revoking     *revokingRecord      `json:"revoking,omitzero"`
	Tokens       map[string]tokenLink `json:"tokens,omitzero"` // variant hash → its token
}

// tokenLink says which writing of a variant's token is the right one, and until when it is of use.
type tokenLink struct {
	Number uint64    `json:"number"`
	Expiry time.Time `json:"expiry"`
}

type variantRecord struct {
	Scopes   []string `json:"scopes,omitzero"`
	Subject  string   `json:"subject,omitzero"`
	Audience string   `json:"audience,omitzero"`
}

type intentRecord struct {
	Attempt   string        `json:"attempt"`
	Serial    uint64        `json:"serial"`
	TokenHash []byte        `json:"token_hash"`
	Variant   variantRecord `json:"variant"`
	Begun     time.Time     `json:"begun"`
	Sends     int           `json:"sends"`
}

type revokingRecord struct {
	Tokens []doomedRecord `json:"tokens,omitzero"`
	Until  time.Time      `json:"until,omitzero"`
	Begun  time.Time      `json:"begun"`
	Tries  int            `json:"tries,omitzero"`
	Next   time.Time      `json:"next,omitzero"`
	Code   string         `json:"code,omitzero"`
}

type doomedRecord struct {
	Kind  tokenbroker.TokenKind `json:"kind"`
	Token []byte                `json:"token"`
}

type tokenRecord struct {
	version
	AccessToken     []byte                 `json:"access_token"`
	Type            string                 `json:"type,omitzero"`
	Scopes          []string               `json:"scopes,omitzero"`
	Expiry          time.Time              `json:"expiry"`
	ExpiryEstimated bool                   `json:"expiry_estimated,omitzero"`
	Obtained        time.Time              `json:"obtained"`
	Generation      tokenbroker.Generation `json:"generation"`
	Metadata        map[string]string      `json:"metadata,omitzero"`
}

type clientIndexRecord struct {
	version
	Client uint64 `json:"client"` // record number
}

type clientRecord struct {
	version
	UID      string                 `json:"uid"`
	Provider string                 `json:"provider"`
	ClientID string                 `json:"client_id"`
	Auth     tokenbroker.AuthMethod `json:"auth"`
	Secrets  []secretRecord         `json:"secrets,omitzero"`
	Account  string                 `json:"account,omitzero"`
	Labels   map[string]string      `json:"labels,omitzero"`
	Created  time.Time              `json:"created"`
	Updated  time.Time              `json:"updated"`
	Version  uint64                 `json:"version"`
}

type secretRecord struct {
	ID          string                 `json:"id"`
	Kind        tokenbroker.SecretKind `json:"kind,omitzero"`
	Secret      []byte                 `json:"secret"`
	Fingerprint string                 `json:"fingerprint,omitzero"`
	KeyID       string                 `json:"key_id,omitzero"`
	Algorithm   string                 `json:"algorithm,omitzero"`
	Certificate string                 `json:"certificate,omitzero"`
	Added       time.Time              `json:"added"`
	Expiry      time.Time              `json:"expiry,omitzero"`
	RotateAfter time.Duration          `json:"rotate_after,omitzero"`
}

type orphanRecord struct {
	version
	Stored       time.Time     `json:"stored"`
	UID          string        `json:"uid"`
	Attempt      string        `json:"attempt,omitzero"`
	Serial       uint64        `json:"serial"`
	Time         time.Time     `json:"time"`
	Variant      variantRecord `json:"variant"`
	Token        *tokenRecord  `json:"token,omitzero"`
	RefreshToken []byte        `json:"refresh_token,omitzero"`
	RefreshEnd   time.Time     `json:"refresh_end,omitzero"`
	Account      string        `json:"account,omitzero"`
	Granted      []string      `json:"granted,omitzero"`
	SecretID     string        `json:"secret_id,omitzero"`
	LastUse      time.Time     `json:"last_use,omitzero"`
}

type numbersRecord struct {
	version
	Boot  uint64 `json:"boot"`
	Bound uint64 `json:"bound"` // every number up to here may have been given out
}

type probeRecord struct {
	version
	Time time.Time `json:"time"`
}

func encode(p payload) ([]byte, error) { return json.Marshal(p) }

// decode is strict; see above.
func decode(b []byte, p payload) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return errors.New("does not decode") // the decoder's text could quote a secret
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("has bytes after its end")
	}
	if v := p.recordVersion(); v < 1 || v > payloadVersion {
		return fmt.Errorf("has payload version %d, this program knows 1 to %d", v, payloadVersion)
	}
	return nil
}

// current stamps a payload that is about to be written.
func current() version { return version{payloadVersion} }
