package client_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/client"
)

func TestChallengesAreReadAsTheyAreWritten(t *testing.T) {
	for name, tc := range map[string]struct {
		fields []string
		want   []string
	}{
		"none":                      {nil, nil},
		"empty":                     {[]string{"", " , ,"}, nil},
		"a scheme alone":            {[]string{"Bearer"}, []string{"bearer"}},
		"parameters":                {[]string{`Bearer realm="a", error="b"`}, []string{"bearer error=b realm=a"}},
		"without blanks":            {[]string{`Bearer realm="a",error=b`}, []string{"bearer error=b realm=a"}},
		"with blanks around":        {[]string{"Bearer realm = \"a\" ,\t error\t=\tb"}, []string{"bearer error=b realm=a"}},
		"without commas":            {[]string{`Bearer realm="a" error="b"`}, []string{"bearer error=b realm=a"}},
		"names in any case":         {[]string{`BEARER Error="B"`}, []string{"bearer error=B"}},
		"a comma inside quotes":     {[]string{`Bearer realm="a, Basic b=c", error=d`}, []string{"bearer error=d realm=a, Basic b=c"}},
		"an escaped quote":          {[]string{`Bearer realm="a\"b\\c", error=d`}, []string{`bearer error=d realm=a"b\c`}},
		"an empty string":           {[]string{`Bearer realm="", error=d`}, []string{`bearer error=d realm=`}},
		"several in one field":      {[]string{`Basic realm="a", Bearer error=b, Digest qop="c", nonce=d`}, []string{"basic realm=a", "bearer error=b", "digest nonce=d qop=c"}},
		"several fields":            {[]string{`Basic realm="a"`, "Bearer error=b"}, []string{"basic realm=a", "bearer error=b"}},
		"token68":                   {[]string{"Negotiate YWJj+/==, Bearer error=b"}, []string{"negotiate", "bearer error=b"}},
		"token68 without padding":   {[]string{"NTLM TlRM, Bearer error=b"}, []string{"ntlm", "bearer error=b"}},
		"a scheme between":          {[]string{"Negotiate, Bearer error=b"}, []string{"negotiate", "bearer error=b"}},
		"a name that comes twice":   {[]string{"Bearer error=a, error=b"}, []string{"bearer error=a"}},
		"a string without end":      {[]string{`Bearer error=a, scope="b`}, []string{"bearer error=a"}},
		"a value that is cut off":   {[]string{`Bearer error=a, scope=https://x`}, []string{"bearer error=a"}},
		"no value":                  {[]string{`Bearer error=a, scope=`}, []string{"bearer error=a"}},
		"what is malformed ends it": {[]string{`Bearer error=a, @@, Basic b=c`, "Digest d=e"}, []string{"bearer error=a", "digest d=e"}},
		"a parameter of nothing":    {[]string{`error="a"`}, []string{"error"}},
	} {
		if got := client.Challenges(tc.fields); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestAHugeFieldIsReadInPart(t *testing.T) {
	got := client.Challenges([]string{strings.Repeat("Basic, ", 1<<16) + "Bearer error=a"})
	if len(got) == 0 || len(got) > 4096 {
		t.Errorf("got %d challenges, want some", len(got))
	}
}

func FuzzChallenges(f *testing.F) {
	for _, seed := range []string{`Bearer realm="a", error="b"`, "Negotiate YWJj==", `Basic realm="a\"b", Bearer error=b`, `a="`, `B x=y z="\`, ",,=,"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		both := client.Challenges([]string{a, b})
		if want := append(client.Challenges([]string{a}), client.Challenges([]string{b})...); !slices.Equal(both, want) {
			t.Errorf("got %q of both, want %q: one field must not touch the other", both, want)
		}
		good := client.Challenges([]string{`Bearer realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a) + `", error=e`})
		if len(a) < 1<<10 && !slices.Equal(good, []string{"bearer error=e realm=" + a}) {
			t.Errorf("got %q, want what was quoted: %q", good, a)
		}
		code := client.ReportCode(http.StatusUnauthorized, a)
		if code == "" || len(code) > 64 || strings.ContainsFunc(code, func(r rune) bool {
			return !strings.ContainsRune("_-.", r) && (r < '0' || r > 'z' || r > '9' && r < 'A' || r > 'Z' && r < 'a')
		}) {
			t.Errorf("got the code %q, which no broker takes", code)
		}
	})
}
