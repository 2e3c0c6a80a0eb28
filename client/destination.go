package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

const mostHops = 100 // of redirects that are looked at

// harmless refuses a request whose URL holds a secret, or does not say where it leads.
func harmless(req *http.Request) error {
	switch u := req.URL; {
	case u == nil || u.Host == "" || u.Opaque != "":
		return refusedURL("must be https://host/path")
	case u.User != nil:
		return refusedURL("holds user information: the token is this request's credential, and a password in a URL ends up in logs")
	case holdsToken(u.RawQuery) || holdsToken(u.EscapedFragment()):
		return refusedURL("holds access_token=: a token in a URL ends up in logs, histories and Referer headers (RFC 6750 §2.3, §5.3), and OAuth 2.1 has " +
			"dropped it; leave it out, the token goes into a header")
	}
	return nil
}

// destined refuses a request that leads where the token must not go.
func (t *transport) destined(req *http.Request) error {
	u := req.URL
	switch {
	case u.Scheme == "http":
		if err := t.plain(u); err != nil {
			return err
		}
	case u.Scheme != "https":
		return refusedURL("must be https: no token is sent over " + u.Scheme)
	}
	for _, host := range []string{u.Host, req.Host} {
		if len(t.hosts) > 0 && host != "" && !t.allows(u.Scheme, host) {
			return refusedURL(fmt.Sprintf("leads to %s, which AllowHosts does not name", withPort(u.Scheme, host)))
		}
	}
	if req.Host != "" && len(t.hosts) == 0 && withPort(u.Scheme, req.Host) != withPort(u.Scheme, u.Host) {
		return tokenbroker.Invalid("host", errors.New("the Host header is not the URL's host: name both with AllowHosts if they are one API"))
	}
	return nil
}

// plain says why the token must not go over plain http.
func (t *transport) plain(u *url.URL) error {
	switch {
	case loopback(u.Hostname()) && t.loopback:
		return nil
	case loopback(u.Hostname()):
		return refusedURL("must be https: plain http to a loopback address needs client.LoopbackHTTP()")
	case t.loopback && strings.EqualFold(strings.TrimSuffix(u.Hostname(), "."), "localhost"):
		return refusedURL("names localhost: who answers to that name is up to a resolver; write 127.0.0.1 or [::1]")
	}
	return refusedURL("must be https: a token is not sent in the clear")
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() && ip.Zone() == ""
}

func (t *transport) allows(scheme, host string) bool {
	return slices.ContainsFunc(t.hosts, func(h string) bool { return withPort(scheme, h) == withPort(scheme, host) })
}

// unclaimed refuses a request that has the token's header already: one of the two would be lost, and which is not for us to say.
func unclaimed(req *http.Request, tok tokenbroker.Token) error {
	name, _ := tok.Header()
	name = http.CanonicalHeaderKey(name)
	for have := range req.Header {
		if http.CanonicalHeaderKey(have) == name {
			return tokenbroker.Invalid("header", fmt.Errorf("the request has the header %s already: leave it out, the credential's token goes there", name))
		}
	}
	return nil
}

// strayed reports whether redirects have led to another scheme, host or port than the caller asked for, if only in between, or whether
// that can't be known because a reply does not say what it answered.
func strayed(req *http.Request) bool {
	here := origin(req.URL)
	for range mostHops {
		if req.Response == nil {
			return false
		}
		req = req.Response.Request
		if req == nil || req.URL == nil || origin(req.URL) != here {
			return true
		}
	}
	return true
}

func origin(u *url.URL) string { return u.Scheme + "://" + withPort(u.Scheme, u.Host) }

// withPort is a host in lower case with its port, that of the scheme if there is none.
func withPort(scheme, host string) string {
	host = strings.ToLower(host)
	if (&url.URL{Host: host}).Port() != "" {
		return host
	}
	host = strings.TrimSuffix(host, ":")
	if scheme == "http" {
		return host + ":80"
	}
	return host + ":443"
}

// holdsToken reports whether a query, or a fragment in its form, has the parameter of RFC 6750 §2.3.
func holdsToken(query string) bool {
	for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return strings.ContainsRune("&;?", r) }) {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if strings.EqualFold(strings.TrimSpace(name), "access_token") {
			return true
		}
	}
	return false
}

func refusedURL(why string) error { return tokenbroker.Invalid("url", errors.New(why)) }
