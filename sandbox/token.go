package sandbox

import (
	"encoding/json"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// scopePattern is the scope-token of RFC 6749 §3.3.
var scopePattern = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]+$`)

// grantRule is one grant of the token endpoint: what it does, and who may use it. It runs with the issuer locked.
type grantRule struct {
	confidential bool                                        // public clients may not use it
	named        bool                                        // only for clients whose Grants name it
	clientless   func(*visit) bool                           // no client has to authenticate; nil = one has to
	issue        func(*visit, *client) (tokens, *oauthError) // the client is nil if there is none
}

// grants is the table of grants. A further grant is one row here and a file of its own.
func grants() map[string]grantRule {
	return map[string]grantRule{
		GrantClientCredentials: {confidential: true, issue: issueClientCredentials},
		GrantRefreshToken:      {issue: issueRefresh},
		GrantAuthorizationCode: {issue: issueCode},
		GrantDeviceCode:        {issue: issueDevice},
		GrantPassword:          {named: true, issue: issuePassword},
		GrantJWTBearer:         {clientless: (*visit).anonymous, issue: issueJWTBearer},
		GrantTokenExchange:     {clientless: (*visit).anonymousExchange, issue: issueExchange},
	}
}

// tokens is a successful answer of the token endpoint (RFC 6749 §5.1).
type tokens struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope"`
	IDToken      string `json:"id_token,omitempty"`
	IssuedType   string `json:"issued_token_type,omitempty"` // RFC 8693 §2.2.1
}

// oauthError is an error answer of the token endpoint (RFC 6749 §5.2).
type oauthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description,omitempty"`
	status      int
	header      http.Header
}

// failed describes an error. The description is ours and never repeats what the client sent.
func failed(status int, code, description string) *oauthError {
	return &oauthError{Code: code, Description: description, status: status, header: http.Header{}}
}

func badRequest(code, description string) *oauthError {
	return failed(http.StatusBadRequest, code, description)
}

func (e *oauthError) answer() answer {
	a := jsonAnswer(e.status, e)
	a.code = e.Code
	maps.Copy(a.header, e.header)
	return a
}

func jsonAnswer(status int, body any) answer {
	b, err := json.Marshal(body)
	if err != nil {
		panic("sandbox: encode an answer: " + err.Error())
	}
	h := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "Pragma": {"no-cache"}}
	return answer{status: status, header: h, body: b, cut: -1}
}

func serveToken(v *visit) answer {
	t, e := v.issue()
	if e != nil {
		return e.answer()
	}
	return jsonAnswer(http.StatusOK, t)
}

// issue applies the checks in the order of the RFC: the request's form, the client, the grant.
func (v *visit) issue() (tokens, *oauthError) {
	if e := v.checkRequest(); e != nil {
		return tokens{}, e
	}
	grant := v.form.get("grant_type")
	rule, ok := grants()[grant]
	if rule.clientless != nil && rule.clientless(v) {
		return rule.issue(v, nil)
	}
	c, e := v.authenticate()
	if e != nil {
		return tokens{}, e
	}
	if grant == "" {
		return tokens{}, badRequest("invalid_request", "grant_type is missing")
	}
	if !ok {
		return tokens{}, badRequest("unsupported_grant_type", "no such grant")
	}
	if !c.may(grant) {
		return tokens{}, badRequest("unauthorized_client", "this client may not use this grant")
	}
	return rule.issue(v, c)
}

// may reports whether a client may use a grant.
func (c *client) may(grant string) bool {
	rule := grants()[grant]
	if rule.confidential && c.Auth == AuthNone {
		return false
	}
	return slices.Contains(c.Grants, grant) || c.Grants == nil && !rule.named
}

func (v *visit) checkRequest() *oauthError {
	switch {
	case v.request.Method != http.MethodPost:
		e := failed(http.StatusMethodNotAllowed, "invalid_request", "use POST")
		e.header.Set("Allow", http.MethodPost)
		return e
	case v.request.URL.RawQuery != "":
		return badRequest("invalid_request", "parameters belong in the body (RFC 6749 §2.3.1, §3.2)")
	case v.bodyErr != nil:
		return badRequest("invalid_request", "the body can't be read or is too large")
	}
	return v.form.err
}

// form is the body of a token request. A parameter without a value counts as omitted (RFC 6749 §3.2).
type form struct {
	values url.Values
	err    *oauthError // why the body is no proper form
}

func (f form) get(name string) string { return f.values.Get(name) }

// repeatable are the parameters that may come more than once (RFC 8707 §2, RFC 8693 §2.1), and the boxes of the consent page.
func repeatable(name string) bool {
	return name == "resource" || name == "audience" || name == grantedField
}

func readForm(v *visit) form {
	raw := v.request.URL.RawQuery
	if v.request.Method != http.MethodGet && v.request.Method != http.MethodHead {
		kind, params, err := mime.ParseMediaType(v.request.Header.Get("Content-Type"))
		charset := params["charset"]
		if err != nil || kind != "application/x-www-form-urlencoded" || charset != "" && !strings.EqualFold(charset, "utf-8") {
			return form{err: badRequest("invalid_request", "send the parameters as application/x-www-form-urlencoded in UTF-8")}
		}
		raw = string(v.body)
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return form{err: badRequest("invalid_request", "the parameters are not form-encoded")}
	}
	for name, vs := range values {
		if len(vs) > 1 && !repeatable(name) {
			return form{err: badRequest("invalid_request", "a parameter is repeated")}
		}
	}
	return form{values: values}
}

// scope returns the scopes asked for, in order and without duplicates, nil if none.
func (f form) scope() ([]string, *oauthError) {
	s := f.get("scope")
	if s == "" {
		return nil, nil
	}
	var scopes []string
	for one := range strings.SplitSeq(s, " ") {
		if !slices.Contains(scopes, one) {
			scopes = append(scopes, one)
		}
	}
	if !wellFormed(scopes) {
		return nil, badRequest("invalid_scope", "scope-tokens joined by single spaces are expected (RFC 6749 §3.3)")
	}
	return scopes, nil
}

func wellFormed(scopes []string) bool {
	return !slices.ContainsFunc(scopes, func(s string) bool { return !scopePattern.MatchString(s) })
}
