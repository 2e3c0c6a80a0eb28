// Package canary looks for secrets in what a program wrote. A secret in a Basic header, a URL's query or a hex dump shows as much as one in the
// clear, so it is looked for in the forms that encoders give it, too. Tests that put secrets in, and search what came out, use it.
package canary

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
)

// leastEncoded is how many bytes of a secret have to be there in base64: fewer may be there by chance.
const leastEncoded = 9

// Find returns what of a text is the secret, as it stands or as an encoder wrote it, and where it begins. It is false if there is none.
func Find(text, secret string) (form string, at int, found bool) {
	for _, form := range forms(secret) {
		if at := strings.Index(text, form); at >= 0 {
			return form, at, true
		}
	}
	return "", 0, false
}

// forms are a secret as it stands and as encoders write it, without what depends on what stands beside it.
func forms(secret string) []string {
	dump := hex.EncodeToString([]byte(secret))
	list := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), dump, strings.ToUpper(dump)}
	for skip := range min(3, len(secret)) { // base64 begins at any third of a group
		part := secret[skip:]
		part = part[:len(part)/3*3]
		if len(part) >= leastEncoded {
			list = append(list, base64.StdEncoding.EncodeToString([]byte(part)), base64.URLEncoding.EncodeToString([]byte(part)))
		}
	}
	return list
}
