package sandbox

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// heldRequest finds what the consent page holds.
var heldRequest = regexp.MustCompile(`name="request" value="([A-Z0-9]+)"`)

// Authorize does what a browser would: it opens an authorization URL, signs in as an account, allows the scopes (all that
// are asked for, if none are named) and returns the URL that the server then sends the browser to, with the code or with an
// error. The error is for a request that the server answers with a page, so that there is no such URL. The visits are
// in the journal as any browser's.
func (s *Server) Authorize(issuer, authorizationURL, account string, scopes ...string) (callbackURL string, err error) {
	return s.browse(issuer, authorizationURL, url.Values{decisionField: {allow}, accountField: {account}, grantedField: scopes})
}

// RefuseAuthorization is Authorize by somebody who says no.
func (s *Server) RefuseAuthorization(issuer, authorizationURL string) (callbackURL string, err error) {
	return s.browse(issuer, authorizationURL, url.Values{decisionField: {deny}})
}

func (s *Server) browse(issuer, authorizationURL string, consent url.Values) (string, error) {
	i := s.mustIssuer(issuer)
	if who := i.account(consent.Get(accountField)); who != nil {
		consent.Set(passwordField, who.Password)
	}
	u, err := url.Parse(authorizationURL)
	if err != nil {
		return "", fmt.Errorf("authorization URL: %w", err)
	}
	if name, e := route(u.Path); name != issuer || e != EndpointAuthorize {
		return "", fmt.Errorf("%s is not where issuer %q authorizes", u.Path, issuer)
	}
	status, header, body, err := s.visit(http.MethodGet, u.String(), nil)
	if err != nil || status == http.StatusSeeOther {
		return header.Get("Location"), err
	}
	held := heldRequest.FindStringSubmatch(body)
	if status != http.StatusOK || held == nil {
		return "", fmt.Errorf("the authorization endpoint answered %d with a page: %s", status, sentence(body))
	}
	consent.Set(requestField, held[1])
	if len(consent[grantedField]) == 0 {
		consent[grantedField] = i.heldScopes(held[1])
	}
	u.RawQuery = ""
	status, header, body, err = s.visit(http.MethodPost, u.String(), consent)
	if err == nil && status != http.StatusSeeOther {
		err = fmt.Errorf("the consent page answered %d: %s", status, sentence(body))
	}
	return header.Get("Location"), err
}

func (i *issuer) heldScopes(id string) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if a := i.requests[id]; a != nil {
		return slices.Clone(a.scopes)
	}
	return nil
}

// visit sends one request as a browser does.
func (s *Server) visit(method, address string, form url.Values) (status int, h http.Header, text string, err error) {
	r, err := http.NewRequestWithContext(context.Background(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, "", fmt.Errorf("visit: %w", err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := s.RoundTrip(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, string(b), err
}

// sentence is what a page says below its title, or what it finds wrong.
func sentence(body string) string {
	for _, start := range []string{`<p class="problem" role="alert">`, "<p>"} {
		if _, rest, ok := strings.Cut(body, start); ok {
			text, _, _ := strings.Cut(rest, "</p>")
			return html.UnescapeString(text)
		}
	}
	return ""
}

// AutoApprove makes an account consent at once to everything that an issuer is asked from now on; "" ends that.
func (s *Server) AutoApprove(issuer, account string) {
	i := s.mustIssuer(issuer)
	if account != "" && i.account(account) == nil {
		panic(fmt.Sprintf("sandbox: issuer %q has no account %q", issuer, account))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.AutoApprove = account
}

var errNoUserCode = errors.New("no device waits with this user code: it is unknown, has expired or was answered")

// Approve does what a person does who enters a device's user code and allows the scopes, all that are asked for if none
// are named.
func (s *Server) Approve(issuer, userCode, account string, scopes ...string) error {
	i := s.mustIssuer(issuer)
	who := i.account(account)
	if who == nil {
		return fmt.Errorf("issuer %q has no account %q", issuer, account)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	d := i.waiting(userCode, s.Now())
	switch {
	case d == nil:
		return errNoUserCode
	case !subset(scopes, d.scopes):
		return errors.New("more scopes than the device asks for")
	case len(scopes) == 0:
		scopes = d.scopes
	}
	d.allow(who, scopes)
	return nil
}

// Deny does what a person does who enters a device's user code and says no.
func (s *Server) Deny(issuer, userCode string) error {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	d := i.waiting(userCode, s.Now())
	if d == nil {
		return errNoUserCode
	}
	d.denied = true
	return nil
}
