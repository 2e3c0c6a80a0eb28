package grant

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const (
	deviceGrant     = "urn:ietf:params:oauth:grant-type:device_code"
	defaultInterval = 5 * time.Second // RFC 8628 §3.2
	maxInterval     = 5 * time.Minute
	maxDeviceLife   = 24 * time.Hour
	maxUserCode     = 64
	maxURL          = 2 << 10
)

// StartDevice asks for a device code (RFC 8628 §3.1). Nothing is spent: it may be asked again. An error is a *tokenbroker.Failure.
func (c *Client) StartDevice(ctx context.Context, r tokenbroker.DeviceRequest) (tokenbroker.DeviceAuthorization, error) {
	q, failure := c.open(r.Credential, r.Client)
	if failure != nil {
		return tokenbroker.DeviceAuthorization{}, failure
	}
	if failure := q.askDevice(r); failure != nil {
		return tokenbroker.DeviceAuthorization{}, failure
	}
	raw, err := c.ask(ctx, &q.call)
	if err != nil {
		return tokenbroker.DeviceAuthorization{}, repeatable(err)
	}
	d, failure := q.device(raw)
	if failure != nil {
		return tokenbroker.DeviceAuthorization{}, repeatable(failure)
	}
	return d, nil
}

func (q *query) askDevice(r tokenbroker.DeviceRequest) *tokenbroker.Failure {
	if failure := q.at.need(q.at.profile.DeviceAuthorizationEndpoint, "device_not_supported"); failure != nil {
		return failure
	}
	q.url = q.at.profile.DeviceAuthorizationEndpoint
	scopes, failure := q.at.consentScopes(r.Scopes, r.Credential)
	if failure != nil {
		return failure
	}
	q.asked = tokenbroker.NewVariant(scopes, "", "")
	q.askScopes()
	q.askTargets(r.Credential.Audience, r.Credential)
	if failure := q.identify(r.Client, r.Secret); failure != nil {
		return failure
	}
	q.form.Set("client_id", r.Client.ClientID) // wanted by some servers even where the client authenticates
	return nil
}

// device reads the reply to a request for a device code. All of it is strict: a person is going to be shown it.
func (q *query) device(a answer) (tokenbroker.DeviceAuthorization, *tokenbroker.Failure) {
	var none tokenbroker.DeviceAuthorization
	top := parse(a.body, a.fault != "")
	switch {
	case a.status/100 != http.StatusOK/100, errorCode(top, q.at.profile.ErrorPath) != "":
		return none, q.refusal(a, top)
	case !top.whole:
		return none, q.unreadable(a)
	}
	d, code := deviceOf(top, q.at.profile, a.sent)
	switch {
	case code != "":
		return none, q.fault(a, tokenbroker.ClassTransient, code)
	case carries([]string{d.UserCode, d.VerificationURI, d.VerificationURIComplete}, q.secrets):
		return none, q.fault(a, tokenbroker.ClassConfiguration, "secret_in_reply")
	}
	return d, nil
}

// deviceOf takes the members, or says which is of no use.
func deviceOf(top fields, p provider.Profile, sent time.Time) (tokenbroker.DeviceAuthorization, string) {
	code, user := top.text("device_code"), top.text("user_code")
	uri, complete := top.text("verification_uri"), top.text("verification_uri_complete")
	if uri == "" {
		uri = top.text("verification_url") // Google's spelling
	}
	if complete == "" {
		complete = top.text("verification_url_complete")
	}
	life, named := top.number("expires_in")
	switch {
	case top.isUnclear("device_code", "user_code", "verification_uri", "verification_url", "verification_uri_complete", "expires_in", "interval"):
		return tokenbroker.DeviceAuthorization{}, "duplicate_key"
	case !plausible(code):
		return tokenbroker.DeviceAuthorization{}, "bad_device_code"
	case !plausible(user) || len(user) > maxUserCode:
		return tokenbroker.DeviceAuthorization{}, "bad_user_code"
	case !isVisitable(uri, p.InsecureLoopback):
		return tokenbroker.DeviceAuthorization{}, "bad_verification_uri"
	case !named || !(life >= 1):
		return tokenbroker.DeviceAuthorization{}, "no_expires_in"
	}
	if !isVisitable(complete, p.InsecureLoopback) {
		complete = ""
	}
	interval := defaultInterval
	if n, ok := top.number("interval"); ok && n > 0 {
		interval = max(time.Second, seconds(n, maxInterval))
	}
	return tokenbroker.DeviceAuthorization{
		DeviceCode: tokenbroker.NewSecret(code), UserCode: user, VerificationURI: uri, VerificationURIComplete: complete,
		Expiry: sent.Add(seconds(life, maxDeviceLife)).Round(0), Interval: interval,
	}, ""
}

// isVisitable reports whether a URL can be shown to a person to go to.
func isVisitable(raw string, loopback bool) bool {
	u, err := url.Parse(raw)
	if err != nil || raw == "" || len(raw) > maxURL || !printable(raw) || strings.ContainsAny(raw, ` <>"\`) || u.Host == "" || u.User != nil {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && loopback
}

// PollDevice asks once whether a device code was consented to (RFC 8628 §3.4), and reads the reply as [Client.Redeem] does. The failure's
// code says how it stands: authorization_pending, slow_down (5 s more between polls from now on, or what RetryAfter says if that is more),
// access_denied, expired_token. A poll whose answer was lost may be repeated.
func (c *Client) PollDevice(ctx context.Context, r tokenbroker.DevicePoll) (tokenbroker.ExchangeReply, error) {
	q, failure := c.open(r.Credential, r.Client)
	if failure != nil {
		return tokenbroker.ExchangeReply{}, failure
	}
	scopes, failure := q.at.consentScopes(r.Scopes, r.Credential)
	switch {
	case failure != nil:
		return tokenbroker.ExchangeReply{}, failure
	case r.DeviceCode.IsZero():
		return tokenbroker.ExchangeReply{}, refuse("device_code_missing")
	}
	q.asked, q.besides = tokenbroker.NewVariant(scopes, "", ""), q.at.besides(r.Scopes, r.Credential.Scopes)
	if failure := q.startTokens(r.Credential); failure != nil {
		return tokenbroker.ExchangeReply{}, failure
	}
	q.form.Set("grant_type", cmp.Or(q.at.profile.GrantTypes[tokenbroker.GrantDeviceCode], deviceGrant))
	q.form.Set("device_code", r.DeviceCode.Reveal())
	q.secrets = append(q.secrets, r.DeviceCode.Reveal())
	if failure := q.identify(r.Client, r.Secret); failure != nil {
		return tokenbroker.ExchangeReply{}, failure
	}
	q.form.Set("client_id", r.Client.ClientID)
	return c.conclude(ctx, q, idCheck{clientID: r.Client.ClientID})
}
