package policy_test

import (
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/policy"
)

const head = "version: 1\nrules:\n"

// full is a rule that has nothing wrong with it, but for a line that is put in.
func full(extra string) string {
	return head + `  - name: a
    identities: ["spiffe://example.org/job/a"]
    actions: [token.get]
    credentials: ["a"]
    scopes: ["s"]
` + extra
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"an empty file", "", []string{"policy is empty"}},
		{"only a comment", "# nothing\n", []string{"policy is empty"}},
		{"no rules", "version: 1\n", []string{"rules are missing"}},
		{"an empty list of rules", "version: 1\nrules: []\n", []string{"line 2, column 8", "at least one rule"}},
		{"rules without a value", head, []string{"at least one rule"}},
		{"no version", "rules: []\n", []string{"version is missing", "at least one rule"}},
		{"another version", strings.Replace(full(""), "1", "2", 1), []string{"line 1, column 10: version must be 1"}},
		{"a version in quotes", strings.Replace(full(""), "1", `"1"`, 1), []string{"version must be 1"}},
		{"a key at the top", full("extra: 1\n"), []string{`line 8, column 1: unknown key "extra"`}},
		{"a key in a rule", full("    scope: [\"b\"]\n"), []string{`line 8, column 5: unknown key "scope"`}},
		{"a key twice", full("    credentials: [\"b\"]\n"), []string{`line 8, column 5: key "credentials" is there twice`}},
		{"a merge key", full("    <<: {name: b}\n"), []string{`unknown key "<<"`}},
		{"not YAML", "version: 1\n\trules: 2\n", []string{"line 2, column 1"}},
		{"not UTF-8", "version: \xff\n", []string{"not valid UTF-8"}},
		{"two documents", full("---\nversion: 1\n"), []string{"second YAML document"}},
		{"a list at the top", "- a\n", []string{"the file must be a mapping"}},
		{"a rule that is a string", head + "  - a\n", []string{"line 3, column 5: a rule must be a mapping"}},
		{"a list that is a string", full("    subjects: a\n"), []string{"subjects must be a list"}},
		{"an empty list", full("    subjects: []\n"), []string{"subjects must be a list of at least one item"}},
		{"a number for a string", full("    subjects: [1]\n"), []string{"subjects: must be a plain string"}},
		{"an empty string", full("    subjects: [\"\"]\n"), []string{"subjects: is empty"}},
		{"an item twice", full("    subjects: [a, a]\n"), []string{`subjects: "a" is there twice`}},
		{"an unquoted star", full("    subjects: [*a]\n"), []string{"quote a pattern that begins with *"}},
		{"an unquoted star before an at sign", full("    subjects:\n      - *@example.org\n"), []string{"line 9", "quote a pattern"}},
		{"an anchor", full("    subjects: [&x a]\n"), []string{"must be a plain string"}},
		{"a tag", full("    subjects: [!!str a]\n"), []string{"must be a plain string"}},
		{"three stars", full("    subjects: [\"a***\"]\n"), []string{`"**" (anything)`}},
		{"a blank at the end", full("    subjects: [\"a \"]\n"), []string{"begins or ends with a blank"}},
		{"a control character", full("    subjects: [\"a\\x01\"]\n"), []string{"control character"}},
		{"a long pattern", full("    subjects: [\"" + strings.Repeat("a", 321) + "\"]\n"), []string{"321 bytes"}},
		{"nothing in a rule", head + "  - name: a\n", []string{`rule "a": identities missing`, `rule "a": actions missing`}},
		{"the same name", full(strings.TrimPrefix(full(""), head)), []string{"line 8", "taken by the rule at line 3", "says the same"}},
		{
			"the same content in another order",
			full("    subjects: [a, b]\n" + strings.Replace(strings.TrimPrefix(full("    subjects: [b, a]\n"), head), "name: a", "name: b", 1)),
			[]string{`line 9, column 5: rule "b" says the same as the rule at line 3`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) { refused(t, tt.text, tt.want...) })
	}
}

func TestParseRefusesPatternsAndActions(t *testing.T) {
	for _, tt := range []struct{ old, new, want string }{
		{"spiffe://example.org/job/a", "**", "must be spiffe://"},
		{"spiffe://example.org/job/a", "spiffe://*/job/a", "leaves the trust domain open"},
		{"spiffe://example.org/job/a", "spiffe://*.example.org/job/a", "leaves the trust domain open"},
		{"spiffe://example.org/job/a", "spiffe://example.org**", "leaves the trust domain open"},
		{"spiffe://example.org/job/a", "spiffe://Example.org/job/a", "a trust domain is made of"},
		{"spiffe://example.org/job/a", "spiffe:///a", "a trust domain is made of"},
		{"spiffe://example.org/job/a", "spiffe://example.org/", "must have a path"},
		{"spiffe://example.org/job/a", "spiffe://example.org", "must have a path"},
		{"spiffe://example.org/job/a", "spiffe://example.org/a//b", "must have a path"},
		{"spiffe://example.org/job/a", "*.org", "DNS name of two labels"},
		{"spiffe://example.org/job/a", "*example.org", "DNS name of two labels"},
		{"spiffe://example.org/job/a", "a.**", "DNS name of two labels"},
		{`credentials: ["a"]`, `credentials: ["Google/*"]`, "fits no name"},
		{`credentials: ["a"]`, `credentials: ["/a"]`, "fits no name"},
		{`credentials: ["a"]`, `credentials: ["a//b"]`, "fits no name"},
		{`scopes: ["s"]`, `scopes: ["a b"]`, "printable ASCII"},
		{"token.get", "token.got", `unknown action "token.got"; known are token.get, `},
		{"token.get", `"*"`, `unknown action "*"`},
		{"token.get", `"**"`, `unknown action "**"`},
		{"token.get", `"tok.*"`, `unknown action "tok.*"`},
		{"token.get", "health", `unknown action "health"`},
		{"token.get", "oauth_client.get", `rule "a": oauth_clients missing`},
		{"    credentials: [\"a\"]\n", "", `rule "a": credentials missing`},
	} {
		t.Run(tt.new, func(t *testing.T) { refused(t, strings.Replace(full(""), tt.old, tt.new, 1), tt.want) })
	}
}

func TestParseReportsAllProblemsInOrder(t *testing.T) {
	_, err := policy.Parse([]byte(full("    subjects: []\n    color: red\n") + "  - name: 7\n    actions: [fly]\n"))
	if err == nil {
		t.Fatal("got no error")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{"subjects", "color", "identities missing", "name: must", "\"fly\""}
	if len(lines) < len(want) {
		t.Fatalf("got %d problems, want at least %d:\n%v", len(lines), len(want), err)
	}
	last := -1
	for _, w := range want {
		i := strings.Index(err.Error(), w)
		if i <= last {
			t.Errorf("%q is missing or out of order in\n%v", w, err)
		}
		last = i
	}
}

func TestParseAcceptsDNSNames(t *testing.T) {
	for _, id := range []string{"dns:worker.example.org", "dns:*.example.org"} {
		parse(t, strings.Replace(full(""), "spiffe://example.org/job/a", id, 1))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full("")))
	f.Add([]byte(full("    subjects: [&x *x]\n")))
	f.Add([]byte("? {"))
	f.Add([]byte("version: 1\nrules: {a: [}"))
	f.Add([]byte("a: |\n - >-\n<<: *b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse(data)
		if (p == nil) == (err == nil) {
			t.Fatalf("Parse(%q) = %v, %v: want either", data, p, err)
		}
		if err == nil && p.Len() == 0 {
			t.Errorf("Parse(%q) gave a policy without rules", data)
		}
	})
}

func parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	return p
}

func refused(t *testing.T, text string, want ...string) {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err == nil || p != nil {
		t.Fatalf("got policy %v and error %v, want an error", p, err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, want it to say %q", err, w)
		}
	}
}

// refusedOnce spoils a text and wants one problem, whose text is known.
func refusedOnce(t *testing.T, text, old, spoiled, want string) {
	t.Helper()
	_, err := policy.Parse([]byte(strings.Replace(text, old, spoiled, 1)))
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got  %v\nwant %s, and nothing else", err, want)
	}
}

func replace(text, old, with string) string { return strings.ReplaceAll(text, old, with) }
