package canary_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/attack/canary"
)

const secret = "canary: a secret?>~ÿ/+"

func TestASecretIsFoundHoweverItIsEncoded(t *testing.T) {
	basic := base64.StdEncoding
	for what, text := range map[string]string{
		"as it stands":            "x" + secret + "y",
		"in a query":              url.Values{"q": {secret}}.Encode(),
		"in a path":               "/v1/" + url.PathEscape(secret),
		"in hex":                  hex.EncodeToString([]byte("ab" + secret)),
		"in hex, in capitals":     strings.ToUpper(hex.EncodeToString([]byte("ab" + secret))),
		"in base64":               basic.EncodeToString([]byte("abc" + secret)),
		"in base64, one byte on":  basic.EncodeToString([]byte("a" + secret)),
		"in base64, two bytes on": basic.EncodeToString([]byte("ab" + secret + "cd")),
		"in base64 of a URL":      base64.RawURLEncoding.EncodeToString([]byte("a" + secret)),
	} {
		form, at, found := canary.Find(text, secret)
		if !found {
			t.Errorf("%s: the secret is not found in %q", what, text)
		} else if text[at:at+len(form)] != form {
			t.Errorf("%s: %q is not at %d of %q", what, form, at, text)
		}
	}
}

func TestATextWithoutTheSecretHasNone(t *testing.T) {
	for _, text := range []string{"", "canary", secret[:len(secret)-1], basicOf("canary: another secret")} {
		if form, _, found := canary.Find(text, secret); found {
			t.Errorf("%q is found in %q", form, text)
		}
	}
}

// TestAShortSecretIsNotTakenForChance has what base64 makes of a few bytes, which any text may hold.
func TestAShortSecretIsNotTakenForChance(t *testing.T) {
	if _, _, found := canary.Find(basicOf("sat_"), "sat_"); found {
		t.Error("four bytes in base64 are found")
	}
}

func basicOf(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
