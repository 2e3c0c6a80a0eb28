package daemon

// Consent is the HTTPS listener for browsers, for consents by link.
type Consent struct {
	Listen    string // TCP address; "" = none, and no consents by link
	PublicURL string // what browsers reach it by, https://HOST[:PORT]; the redirect URI is this with /consent/callback
	Cert, Key string // PEM files of its certificate, which browsers have to trust, and its key (mode 0600)
}

type webListener struct{}
