package grant_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

// TestS17AProviderThatEchoesSecretsIsNotQuoted: what was sent comes back in every place of an error, also where a code belongs. failed looks
// through the Failure. A short word that was not sent, in the place of a code, is one (docs/errors.md), so what only the reply has is not tried there.
func TestS17AProviderThatEchoesSecretsIsNotQuoted(t *testing.T) {
	for _, secret := range []string{refreshCanary, secretCanary, url.QueryEscape(secretCanary), replyCanary} {
		for what, body := range map[string]string{
			"the description":   fmt.Sprintf(`{"error":"invalid_grant","error_description":"refresh token %s was revoked"}`, secret),
			"the URI":           fmt.Sprintf(`{"error":"invalid_grant","error_uri":"https://example.com/?t=%s"}`, secret),
			"the code":          fmt.Sprintf(`{"error":%q}`, secret),
			"an object":         fmt.Sprintf(`{"error":{"code":%q,"message":%q}}`, secret, secret),
			"a suberror":        fmt.Sprintf(`{"error":"invalid_grant","suberror":%q,"error_codes":[%q]}`, secret, secret),
			"a form":            "error=invalid_grant&error_description=" + url.QueryEscape(secret),
			"a page":            "<html><body>Bad request: " + secret + "</body></html>",
			"bytes":             secret + "\x00\xff",
			"a name of a field": fmt.Sprintf(`{%q:"x","error":"invalid_grant"}`, secret),
		} {
			if secret == replyCanary && (what == "the code" || what == "an object") {
				continue
			}
			for _, status := range []int{200, 400, 401, 403, 429, 500, 302} {
				t.Run(fmt.Sprintf("%s, %d", what, status), func(t *testing.T) {
					header := http.Header{"Www-Authenticate": {`Bearer error="` + secret + `"`}, "Location": {"https://evil.example/?" + secret}, "Retry-After": {secret}}
					failed(t, provider.Profile{}, refreshRequest(), status, body, header)
				})
			}
		}
	}
}
