package sandbox

// issueDevice is RFC 8628 §3.4.
func issueDevice(v *visit, c *client) (tokens, *oauthError) {
	code := v.form.get("device_code")
	if code == "" {
		return tokens{}, badRequest("invalid_request", "device_code is missing")
	}
	d := v.issuer.devices[code]
	if d == nil || d.client != c {
		return tokens{}, badRequest("invalid_grant", "the device code is unknown, used, or another client's")
	}
	early := !d.polled.IsZero() && v.now.Sub(d.polled) < d.interval
	d.polled = v.now
	switch {
	case !v.now.Before(d.expiry):
		return tokens{}, badRequest("expired_token", "the device code has expired")
	case early:
		d.interval += slowDown
		return tokens{}, badRequest("slow_down", "polled before the interval was over; it is 5 s longer now")
	case d.denied:
		return tokens{}, badRequest("access_denied", "the account said no")
	case d.refused != nil:
		return tokens{}, d.refused
	case d.account == nil:
		return tokens{}, badRequest("authorization_pending", "nobody has answered yet")
	}
	delete(v.issuer.devices, code)
	t, _ := v.consented(d.grantee, "")
	return t, nil
}
