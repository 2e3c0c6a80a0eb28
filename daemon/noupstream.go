package daemon

import (
	"context"
	"net/url"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/consent"
)

type upstreamConsents interface {
	consent.Codes
	consent.Devices
}

// noUpstream stands in for a grant client that knows no consents.
type noUpstream struct{}

func no() error {
	return &tokenbroker.Failure{Class: tokenbroker.ClassConfiguration, Code: "not_supported"}
}

// AuthorizationURL implements consent.Codes.
func (noUpstream) AuthorizationURL(tokenbroker.AuthorizationRequest) (string, error) { return "", no() }

// Redeem implements consent.Codes.
func (noUpstream) Redeem(context.Context, tokenbroker.CodeRequest) (tokenbroker.ExchangeReply, error) {
	return tokenbroker.ExchangeReply{}, no()
}

// Revoke implements consent.Codes.
func (noUpstream) Revoke(context.Context, tokenbroker.RevokeRequest) error { return no() }

// CheckCallback implements consent.Codes.
func (noUpstream) CheckCallback(string, url.Values) error { return no() }

// StartDevice implements consent.Devices.
func (noUpstream) StartDevice(context.Context, tokenbroker.DeviceRequest) (tokenbroker.DeviceAuthorization, error) {
	return tokenbroker.DeviceAuthorization{}, no()
}

// PollDevice implements consent.Devices.
func (noUpstream) PollDevice(context.Context, tokenbroker.DevicePoll) (tokenbroker.ExchangeReply, error) {
	return tokenbroker.ExchangeReply{}, no()
}
