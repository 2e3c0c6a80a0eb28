package sandbox

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// slowDown is what each slow_down adds to the interval (RFC 8628 §3.5).
const slowDown = 5 * time.Second

// device is a device that waits for somebody to enter its user code.
type device struct {
	grantee  // the account is nil until somebody allowed it
	userCode string
	expiry   time.Time
	interval time.Duration
	polled   time.Time // zero = not yet
	denied   bool
	refused  *oauthError // what an administrator has against it
}

// deviceAnswer is RFC 8628 §3.2.
type deviceAnswer struct {
	DeviceCode      string `json:"device_code"`
	UserCode        string `json:"user_code"`
	VerificationURI string `json:"verification_uri"`
	Complete        string `json:"verification_uri_complete"`
	ExpiresIn       int64  `json:"expires_in"`
	Interval        int64  `json:"interval"`
}

// serveDevice is the device authorization endpoint.
func serveDevice(v *visit) answer {
	c, e := v.clientOf()
	if e != nil {
		return e.answer()
	}
	if !c.may(GrantDeviceCode) {
		return badRequest("unauthorized_client", "this client may not use this grant").answer()
	}
	scopes, e := v.scopesFor(c)
	if e != nil {
		return e.answer()
	}
	audience, e := v.resources("resource")
	if e != nil {
		return e.answer()
	}
	d := &device{
		grantee:  grantee{client: c, scopes: scopes, audience: audience},
		userCode: newUserCode(),
		expiry:   v.now.Add(v.issuer.DeviceLife),
		interval: v.issuer.DeviceInterval,
	}
	if v.issuer.AutoApprove != "" {
		d.allow(v.issuer.account(v.issuer.AutoApprove), scopes)
	}
	code := v.issuer.newDevice(d, v.now)
	uri := v.url(EndpointActivate)
	return jsonAnswer(http.StatusOK, deviceAnswer{
		DeviceCode: code, UserCode: d.userCode, VerificationURI: uri, Complete: uri + "?user_code=" + url.QueryEscape(d.userCode),
		ExpiresIn: int64(v.issuer.DeviceLife / time.Second), Interval: int64(d.interval / time.Second),
	})
}

// clientOf checks form and client of a request that has no grant.
func (v *visit) clientOf() (*client, *oauthError) {
	if e := v.checkRequest(); e != nil {
		return nil, e
	}
	return v.authenticate()
}

// newDevice keeps a device. One that expired is remembered for another of its lives, so that its client hears why.
func (i *issuer) newDevice(d *device, now time.Time) string {
	for code, old := range i.devices {
		if !now.Before(old.expiry.Add(i.DeviceLife)) {
			delete(i.devices, code)
		}
	}
	code := DevicePrefix + rand.Text()
	i.devices[code] = d
	return code
}

// newUserCode is eight consonants, which spell no word and read well (RFC 8628 §6.1).
func newUserCode() string {
	const letters = "BCDFGHJKLMNPQRSTVWXZ"
	raw := make([]byte, 8)
	if _, err := rand.Read(raw); err != nil {
		panic("sandbox: " + err.Error()) // never, as crypto/rand has it
	}
	for n, b := range raw {
		raw[n] = letters[int(b)%len(letters)]
	}
	return string(raw[:4]) + "-" + string(raw[4:])
}

// waiting finds the device with a user code that nobody has answered yet. Case and hyphens do not matter.
func (i *issuer) waiting(userCode string, now time.Time) *device {
	plain := func(s string) string { return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(s)) }
	for _, d := range i.devices {
		if plain(d.userCode) == plain(userCode) && now.Before(d.expiry) && !d.denied && d.account == nil && d.refused == nil {
			return d
		}
	}
	return nil
}

func (d *device) allow(who *Account, scopes []string) {
	d.account, d.scopes, d.refused = who, scopes, who.refusal(scopes)
}

// serveActivate is the page where a person enters the user code.
func serveActivate(v *visit) answer {
	p := page{Title: "Connect a device", Text: "Enter the code that your device shows.", Action: v.url(EndpointActivate), AskCode: true}
	p.UserCode = v.form.get("user_code")
	p.Accounts, p.Password = v.issuer.Accounts, v.issuer.needsPassword()
	switch {
	case v.form.err != nil:
		return errorPage(v.form.err)
	case v.request.Method == http.MethodGet || v.request.Method == http.MethodHead:
		if d := v.issuer.waiting(p.UserCode, v.now); d != nil {
			p.Text, p.Scopes = "Allow "+d.client.ID+" on the device that shows this code?", d.scopes
		}
		return v.show(http.StatusOK, p)
	case v.request.Method != http.MethodPost:
		return notAllowed("GET, POST")
	}
	return v.activate(p)
}

// activate takes the answer to the page. Without boxes for the scopes, which it lacks until the code is known, all are granted.
func (v *visit) activate(p page) answer {
	d := v.issuer.waiting(p.UserCode, v.now)
	if d == nil {
		p.Problem = "There is no such code, or it has expired or was used."
		return v.show(http.StatusBadRequest, p)
	}
	if v.form.get(decisionField) == deny {
		d.denied = true
		return v.show(http.StatusOK, page{Title: "Denied", Text: "The device gets no access. You can close this page."})
	}
	asked := d.scopes
	if len(v.form.values[grantedField]) == 0 {
		v.form.values[grantedField] = asked
	}
	who, granted, problem := v.signedIn(asked)
	if problem != "" {
		p.Problem, p.Scopes = problem, d.scopes
		return v.show(http.StatusBadRequest, p)
	}
	d.allow(who, granted)
	return v.show(http.StatusOK, page{Title: "Connected", Text: "The device has access now. You can close this page."})
}
