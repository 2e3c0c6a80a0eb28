package sandbox

import (
	"net/http"
	"slices"
	"strings"
)

// serveResource is a protected resource, so that a job can try its token (RFC 6750). A scope in the query, as "?scope=a+b", is what it wants.
func serveResource(v *visit) answer {
	a, refused := v.bearerToken()
	if a == nil {
		return refused
	}
	wanted := strings.Fields(v.request.URL.Query().Get("scope"))
	lacks := func(scope string) bool { return !slices.Contains(a.scopes, scope) }
	switch {
	case !wellFormed(wanted): // it could end the challenge
		return bearerError(http.StatusBadRequest, "invalid_request")
	case slices.ContainsFunc(wanted, lacks):
		return insufficientScope(wanted)
	}
	return jsonAnswer(http.StatusOK, map[string]string{
		"client_id": a.client.ID, "scope": strings.Join(a.scopes, " "), "sub": a.subject(),
	})
}

// serveUserinfo is OpenID Connect Core §5.3.
func serveUserinfo(v *visit) answer {
	a, refused := v.bearerToken()
	switch {
	case a == nil:
		return refused
	case !slices.Contains(a.scopes, scopeOpenID):
		return bearerError(http.StatusForbidden, "insufficient_scope")
	}
	body := map[string]any{"sub": a.subject()}
	a.account.describe(body)
	return jsonAnswer(http.StatusOK, body)
}

// bearerToken finds what the token of a request is worth. Without a live one there is only the answer.
func (v *visit) bearerToken() (*access, answer) {
	headers := v.request.Header.Values("Authorization")
	if len(headers) == 0 {
		return nil, bearerError(http.StatusUnauthorized, "")
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, bearerError(http.StatusBadRequest, "invalid_request")
	}
	a := v.issuer.live(token, v.now)
	if a == nil {
		return nil, bearerError(http.StatusUnauthorized, "invalid_token")
	}
	return a, answer{}
}

// bearerKind says what the token of a request is.
func (v *visit) bearerKind() Bearer {
	if a, _ := v.bearerToken(); a != nil {
		return BearerLive
	}
	return BearerDead
}

// insufficientScope names the scopes that a resource wants (RFC 6750 §3).
func insufficientScope(wanted []string) answer {
	a := bearerError(http.StatusForbidden, "insufficient_scope")
	a.header.Set("WWW-Authenticate", a.header.Get("WWW-Authenticate")+`, scope="`+strings.Join(wanted, " ")+`"`)
	return a
}

// bearerError answers with the code in WWW-Authenticate alone; without credentials there is no code (RFC 6750 §3.1).
func bearerError(status int, code string) answer {
	a := textAnswer(status, http.StatusText(status)+"\n")
	challenge := `Bearer realm="sandbox"`
	if code != "" {
		challenge += `, error="` + code + `"`
	}
	a.header.Set("WWW-Authenticate", challenge)
	a.code = code
	return a
}
