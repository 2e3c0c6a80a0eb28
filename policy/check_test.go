package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/policy"
)

// everyList is a rule with one pattern in each list, to spoil one at a time. Line 4 has the identity, line 6 the credential, and so on.
const everyList = head + `  - name: a
    identities: ["spiffe://example.org/job/a"]
    actions: ["credential.*", "oauth_client.*", "token.*"]
    credentials: ["a/b"]
    oauth_clients: ["a/app"]
    scopes: ["drive"]
    subjects: ["ann@example.org"]
    audiences: ["https://api.example.org/"]
`

// TestEachPatternIsCheckedWhereItStands compares the whole text of each refusal, with its line and column.
func TestEachPatternIsCheckedWhereItStands(t *testing.T) {
	parse(t, everyList)
	lists := []struct {
		key, good string
		line      int
		most      int // bytes
	}{
		{"identities", "spiffe://example.org/job/a", 4, 2048},
		{"credentials", "a/b", 6, 128},
		{"oauth_clients", "a/app", 7, 128},
		{"scopes", "drive", 8, 256},
		{"subjects", "ann@example.org", 9, 320},
		{"audiences", "https://api.example.org/", 10, 1024},
	}
	for _, l := range lists {
		long := strings.Repeat("a", l.most+1)
		for name, tt := range map[string]struct{ bad, want string }{
			"a control character": {`a\x01b`, "pattern contains a control character or is not valid UTF-8"},
			"a line feed":         {`a\nb`, "pattern contains a control character or is not valid UTF-8"},
			"a blank in front":    {" a", `pattern " a" begins or ends with a blank`},
			"a blank behind":      {"a ", `pattern "a " begins or ends with a blank`},
			"three stars":         {"a***", `pattern "a***": write "*" (no "/") or "**" (anything)`},
			"five stars":          {"*****", `pattern "*****": write "*" (no "/") or "**" (anything)`},
			"too long":            {long, fmt.Sprintf("pattern has %d bytes, at most %d are allowed", l.most+1, l.most)},
		} {
			t.Run(l.key+", "+name, func(t *testing.T) {
				text := strings.Replace(everyList, `: ["`+l.good+`"]`, `: ["`+tt.bad+`"]`, 1)
				_, err := policy.Parse([]byte(text))
				want := fmt.Sprintf("line %d, column %d: %s: %s", l.line, len("    "+l.key+": [")+1, l.key, tt.want)
				if err == nil || err.Error() != want {
					t.Errorf("got  %v\nwant %s", err, want)
				}
			})
		}
	}
}

// TestIdentitiesAndNamesAreRefusedInTheseWords has the rest of what check.go says, word for word.
func TestIdentitiesAndNamesAreRefusedInTheseWords(t *testing.T) {
	dns := `identity %q must be spiffe://TRUST-DOMAIN/PATH, or dns: and a lower-case DNS name of two labels or more, "*." in front at most`
	open := `identity %q leaves the trust domain open; write it out, as in spiffe://example.org/job/*`
	domain := `identity %q: a trust domain is made of a-z, 0-9, '.', '-' and '_'`
	path := `identity %q must have a path of non-empty segments behind the trust domain, none of them "." or ".."`
	name := `pattern %q fits no name; names are segments of [a-z0-9][a-z0-9._-]* joined by '/'`
	for _, tt := range []struct{ key, good, bad, want string }{
		{"identities", "spiffe://example.org/job/a", "*", dns},
		{"identities", "spiffe://example.org/job/a", "dns:job.Example.org", dns},
		{"identities", "spiffe://example.org/job/a", "dns:job.*.example.org", dns},
		{"identities", "spiffe://example.org/job/a", "dns:*.*.example.org", dns},
		{"identities", "spiffe://example.org/job/a", "http://example.org/a", dns},
		{"identities", "spiffe://example.org/job/a", "SPIFFE://example.org/a", dns},
		{"identities", "spiffe://example.org/job/a", "dns:job.example.org.", dns},
		{"identities", "spiffe://example.org/job/a", "CN=job", dns},
		{"identities", "spiffe://example.org/job/a", "job.example.org", dns},
		{"identities", "spiffe://example.org/job/a", "DNS:job.example.org", dns},
		{"identities", "spiffe://example.org/job/a", "spiffe://**", open},
		{"identities", "spiffe://example.org/job/a", "spiffe://exa*ple.org/a", open},
		{"identities", "spiffe://example.org/job/a", "spiffe://example.org:443/a", domain},
		{"identities", "spiffe://example.org/job/a", "spiffe://a@example.org/a", domain},
		{"identities", "spiffe://example.org/job/a", "spiffe://example%2eorg/a", domain},
		{"identities", "spiffe://example.org/job/a", "spiffe://example.org/a/", path},
		{"identities", "spiffe://example.org/job/a", "spiffe://example.org//a", path},
		{"identities", "spiffe://example.org/job/a", "spiffe://example.org/../a", path},
		{"identities", "spiffe://example.org/job/a", "spiffe://example.org/a/./*", path},
		{"credentials", "a/b", "a/B", name},
		{"credentials", "a/b", "a/../b", name},
		{"oauth_clients", "a/app", "./app", name},
		{"credentials", "a/b", "a b", name},
		{"credentials", "a/b", "a/b/", name},
		{"credentials", "a/b", "a!b", name},
		{"credentials", "a/b", "ä", name},
		{"oauth_clients", "a/app", "/app", name},
		{"oauth_clients", "a/app", "a?", name},
	} {
		t.Run(tt.key+" "+tt.bad, func(t *testing.T) {
			_, err := policy.Parse([]byte(strings.Replace(everyList, `"`+tt.good+`"`, `"`+tt.bad+`"`, 1)))
			if want := tt.key + ": " + fmt.Sprintf(tt.want, tt.bad); err == nil || !strings.HasSuffix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant …%s, and nothing else", err, want)
			}
		})
	}
}

func TestTheLongestPatternsAreTaken(t *testing.T) {
	for _, tt := range []struct {
		good string
		most int
	}{{"spiffe://example.org/job/a", 2048}, {"a/b", 128}, {"a/app", 128}, {"drive", 256}, {"ann@example.org", 320}, {"https://api.example.org/", 1024}} {
		long := tt.good + strings.Repeat("a", tt.most-len(tt.good))
		parse(t, strings.Replace(everyList, `"`+tt.good+`"`, `"`+long+`"`, 1))
	}
}

func TestSyntaxThatNoPolicyHas(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"an alias without an anchor", full("    subjects: *a\n"), "line 8"},
		{"a number for a key", full("    7: a\n"), `unknown key "7"`},
		{"a null for a rule", head + "  -\n", "a rule must be a mapping"},
		{"a null for a name", strings.Replace(full(""), "name: a", "name:", 1), "name: must be a plain string"},
		{"an open bracket", full("    subjects: [a\n"), "line 8"},
		{"a mapping for a list", full("    subjects: {a: b}\n"), "line 8, column 15: subjects must be a list of at least one item; or leave the key out"},
		{"a list in a list", full("    subjects: [[a]]\n"), "line 8, column 16: subjects: must be a plain string, quoted if need be"},
		{"a boolean", full("    subjects: [yes, true]\n"), "subjects: must be a plain string"},
		{"a text over lines", full("    subjects:\n      - |\n        a\n"), "subjects: must be a plain string"},
	} {
		t.Run(tt.name, func(t *testing.T) { refused(t, tt.text, tt.want) })
	}
}
