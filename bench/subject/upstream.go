package subject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// TokenBytes is how long every access token is: that of a JWT with a few claims.
const TokenBytes = 1024

const (
	issuerSteady   = "steady"   // refresh tokens stay; client credentials
	issuerRotating = "rotating" // strict rotation: a refresh token that is sent twice kills its grant

	clientID     = "job"
	clientSecret = "bench-secret-not-for-production"
	scope        = "jobs.read"
)

// Exchanges is what the provider saw.
type Exchanges struct {
	Requests int `json:"requests"` // to the token endpoint
	Refused  int `json:"refused"`  // of them
	Once     int `json:"once"`     // refresh tokens that were sent once and brought a token
	More     int `json:"more"`     // refresh tokens that were sent more than once
}

// upstream is the sandbox, with tokens as long as real ones. It notes when it answered last.
type upstream struct {
	sandbox  *sandbox.Server
	answered atomic.Int64 // Unix nanoseconds
}

func newUpstream() (*upstream, error) {
	clients := []sandbox.Client{{ID: clientID, Secrets: []string{clientSecret}}}
	s, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{
		{Name: issuerSteady, Clients: clients, Rotation: sandbox.RotateNone},
		{Name: issuerRotating, Clients: clients, Rotation: sandbox.RotateStrict},
	}})
	return &upstream{sandbox: s}, err
}

func (u *upstream) refreshToken() string {
	return u.sandbox.SeedRefreshToken(issuerRotating, clientID, scope)
}

// RoundTrip implements http.RoundTripper.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := u.sandbox.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	body, err = lengthen(body)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	u.answered.Store(time.Now().UnixNano())
	return resp, err
}

// lengthen fills the access token of a reply up to TokenBytes.
func lengthen(body []byte) ([]byte, error) {
	reply := map[string]any{}
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, err
	}
	token, ok := reply["access_token"].(string)
	if !ok || len(token) > TokenBytes {
		return nil, fmt.Errorf("an access token of %d bytes", len(token))
	}
	reply["access_token"] = token + strings.Repeat("x", TokenBytes-len(token))
	return json.Marshal(reply)
}

func (u *upstream) count() Exchanges {
	all := u.sandbox.Count(sandbox.Filter{Endpoint: sandbox.EndpointToken})
	e := Exchanges{Requests: all, Refused: all - u.sandbox.Count(sandbox.Filter{Endpoint: sandbox.EndpointToken, Status: http.StatusOK})}
	for _, r := range u.sandbox.Redemptions() {
		switch {
		case r.Presented > 1:
			e.More++
		case r.Redeemed == 1:
			e.Once++
		}
	}
	return e
}
