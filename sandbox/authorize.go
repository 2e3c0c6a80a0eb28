package sandbox

import (
	"crypto/rand"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// requestLife is for how long the consent page can be answered.
const requestLife = 10 * time.Minute

// challengePattern is a code_challenge by S256: a SHA-256 in base64url.
var challengePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// authorization is what a client asks an account to consent to.
type authorization struct {
	grantee            // the account is who was found to consent, nil until then
	sentURI     string // redirect_uri as the request had it, "" = it had none
	redirectURI string
	state       string
	nonce       string
	challenge   string // "" = none
	expiry      time.Time
}

// code is an authorization that was consented to.
type code struct {
	authorization
	spent  bool
	family *family // that came of it
}

// serveAuthorize is RFC 6749 §4.1.1: GET asks, with a page or at once; POST answers the page.
func serveAuthorize(v *visit) answer {
	switch v.request.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		if v.form.get(requestField) != "" {
			return v.answerConsent()
		}
	default:
		return notAllowed("GET, POST")
	}
	if v.form.err != nil {
		return errorPage(v.form.err)
	}
	a, e := v.addressed()
	if e != nil {
		return errorPage(e) // without a redirect URI that is known there is nobody to send the error to (§4.1.2.1)
	}
	if e := v.readRequest(a); e != nil {
		return v.sendBack(a, e)
	}
	if v.issuer.AutoApprove != "" {
		return v.consent(a, v.issuer.account(v.issuer.AutoApprove), a.scopes)
	}
	if v.form.get("prompt") == "none" {
		return v.sendBack(a, badRequest("interaction_required", "nobody has signed in"))
	}
	return v.consentPage(v.issuer.hold(a, v.now), a, "")
}

// addressed finds client and redirect URI, without which nothing can be answered.
func (v *visit) addressed() (*authorization, *oauthError) {
	c := v.issuer.clients[v.form.get("client_id")]
	if c == nil {
		return nil, badRequest("invalid_client", "client_id is missing or unknown")
	}
	a := &authorization{grantee: grantee{client: c}, sentURI: v.form.get("redirect_uri"), state: v.form.get("state")}
	a.redirectURI = a.sentURI
	if a.sentURI == "" && len(c.RedirectURIs) == 1 {
		a.redirectURI = c.RedirectURIs[0]
	}
	if !slices.ContainsFunc(c.RedirectURIs, func(registered string) bool { return sameRedirect(registered, a.redirectURI) }) {
		return nil, badRequest("invalid_request", "redirect_uri is not registered for this client")
	}
	return a, nil
}

// sameRedirect compares exactly, but for the port of a loopback address (RFC 8252 §7.3).
func sameRedirect(registered, asked string) bool {
	if registered == asked {
		return true
	}
	r, err := url.Parse(registered)
	if err != nil || r.Scheme != "http" || net.ParseIP(r.Hostname()) == nil || !net.ParseIP(r.Hostname()).IsLoopback() {
		return false
	}
	a, err := url.Parse(asked)
	if err != nil || r.Hostname() != a.Hostname() {
		return false
	}
	r.Host, a.Host = "", ""
	return r.String() == a.String() && strings.HasPrefix(asked, "http://")
}

// readRequest checks what is asked for and fills it in. Its errors go back to the client.
func (v *visit) readRequest(a *authorization) *oauthError {
	challenge, method := v.form.get("code_challenge"), v.form.get("code_challenge_method")
	switch {
	case v.form.get("request") != "":
		return badRequest("request_not_supported", "no request objects")
	case v.form.get("request_uri") != "":
		return badRequest("request_uri_not_supported", "no request objects")
	case v.form.get("response_type") == "":
		return badRequest("invalid_request", "response_type is missing")
	case v.form.get("response_type") != "code":
		return badRequest("unsupported_response_type", "use response_type=code: the implicit grant leaks tokens (RFC 9700 §2.1.2)")
	case v.form.get("response_mode") != "" && v.form.get("response_mode") != "query":
		return badRequest("invalid_request", "only response_mode=query")
	case !a.client.may(GrantAuthorizationCode):
		return badRequest("unauthorized_client", "this client may not use authorization_code")
	case challenge == "" && method == "" && a.client.PKCEOptional:
	case method != "S256":
		return badRequest("invalid_request", "code_challenge_method must be S256 (RFC 7636)")
	case !challengePattern.MatchString(challenge):
		return badRequest("invalid_request", "code_challenge is not a SHA-256 in base64url")
	}
	var e *oauthError
	if a.scopes, e = v.scopesFor(a.client); e != nil {
		return e
	}
	if a.audience, e = v.resources("resource"); e != nil {
		return e
	}
	a.challenge, a.nonce = challenge, v.form.get("nonce")
	return nil
}

// hold keeps an authorization until the page is answered, and forgets those that nobody answered.
func (i *issuer) hold(a *authorization, now time.Time) string {
	for id, old := range i.requests {
		if !now.Before(old.expiry) {
			delete(i.requests, id)
		}
	}
	id := rand.Text()
	a.expiry = now.Add(requestLife)
	i.requests[id] = a
	return id
}

// consent ends an authorization well, unless the account may not give what is asked for.
func (v *visit) consent(a *authorization, who *Account, scopes []string) answer {
	a.account, a.scopes = who, scopes
	if e := who.refusal(scopes); e != nil {
		return v.sendBack(a, e)
	}
	now := v.now
	for text, old := range v.issuer.codes {
		if !now.Before(old.expiry) {
			delete(v.issuer.codes, text)
		}
	}
	text := CodePrefix + rand.Text()
	a.expiry = now.Add(v.issuer.CodeLife)
	v.issuer.codes[text] = &code{authorization: *a}
	return v.redirect(a, url.Values{"code": {text}})
}

// refusal says what an account's administrator has against scopes, nil if nothing.
func (a *Account) refusal(scopes []string) *oauthError {
	switch {
	case a.Outside:
		return badRequest("org_internal", "this client serves the accounts of its own organisation alone")
	case slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(a.DeniedScopes, s) }):
		return badRequest("admin_policy_enforced", "the account's administrator forbids one or more of the scopes")
	}
	return nil
}

// sendBack ends an authorization with an error (RFC 6749 §4.1.2.1).
func (v *visit) sendBack(a *authorization, e *oauthError) answer {
	out := v.redirect(a, url.Values{"error": {e.Code}, "error_description": {e.Description}})
	out.code = e.Code
	return out
}

// redirect sends the browser back to the client, with state and iss (RFC 9207).
func (v *visit) redirect(a *authorization, params url.Values) answer {
	to, err := url.Parse(a.redirectURI)
	if err != nil {
		panic("sandbox: a registered redirect URI: " + err.Error()) // validateRedirects saw to it
	}
	query := to.Query()
	if a.state != "" {
		query.Set("state", a.state)
	}
	query.Set("iss", v.base())
	maps.Copy(query, params)
	to.RawQuery = query.Encode()
	out := textAnswer(http.StatusSeeOther, "")
	out.header = http.Header{"Location": {to.String()}, "Cache-Control": {"no-store"}, "Referrer-Policy": {"no-referrer"}}
	return out
}

func notAllowed(methods string) answer {
	out := textAnswer(http.StatusMethodNotAllowed, "use "+methods+"\n")
	out.header.Set("Allow", methods)
	return out
}
