package sandbox

import (
	"net/http"
	"strings"
)

// serveResource is a protected resource, so that a job can try its token (RFC 6750).
func serveResource(v *visit) answer {
	headers := v.request.Header.Values("Authorization")
	if len(headers) == 0 {
		return bearerError(http.StatusUnauthorized, "")
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return bearerError(http.StatusBadRequest, "invalid_request")
	}
	a := v.issuer.live(token, v.now)
	if a == nil {
		return bearerError(http.StatusUnauthorized, "invalid_token")
	}
	return jsonAnswer(http.StatusOK, map[string]string{"client_id": a.client.ID, "scope": strings.Join(a.scopes, " ")})
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
