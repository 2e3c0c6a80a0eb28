package policy_test

import (
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/policy"
)

func TestAttackARuleOnConsentsThatAllowsNothingIsRefused(t *testing.T) {
	_, err := policy.Parse([]byte("version: 1\nrules:\n  - name: a\n    identities: [\"spiffe://example.org/operator/*\"]\n    actions: [\"consent.*\"]\n    scopes: [\"**\"]\n"))
	if err == nil || !strings.Contains(err.Error(), "credentials missing") {
		t.Errorf("got %v, want it said that credentials are missing", err)
	}
}

func TestS25NamesThatOnlyLookAllowedAreDenied(t *testing.T) {
	p := parse(t, head+`  - name: a
    identities: ["spiffe://example.org/job/a", "spiffe://example.org/ns/*/job"]
    actions: ["token.*", "credential.*", "oauth_client.*"]
    credentials: ["team-a/*", "team-a/deep/**"]
    oauth_clients: ["team-a/*"]
    scopes: ["files.*"]
    subjects: ["*@example.org"]
    audiences: ["https://api.example.org/*"]
`)
	good := policy.Request{Identity: "spiffe://example.org/job/a", Action: policy.TokenGet, Credential: "team-a/x", OAuthClient: "team-a/app",
		Scopes: []string{"files.read"}, Subject: "ann@example.org", Audience: "https://api.example.org/v1"}
	if d := p.Decide(good); !d.Allowed {
		t.Fatalf("got %+v of what the rule names", d)
	}
	for name, spoil := range map[string]func(*policy.Request){
		"a segment that climbs":                func(r *policy.Request) { r.Credential = "team-a/.." },
		"a path that climbs in a deep pattern": func(r *policy.Request) { r.Credential = "team-a/deep/../../team-b/x" },
		"a dot in a deep pattern":              func(r *policy.Request) { r.Credential = "team-a/deep/./x" },
		"an identity with a climbing segment":  func(r *policy.Request) { r.Identity = "spiffe://example.org/ns/../job" },
		"an OAuth client that climbs":          func(r *policy.Request) { r.OAuthClient = "team-a/.." },
		"a path that climbs out":               func(r *policy.Request) { r.Credential = "team-a/../team-b/x" },
		"a path that climbs and comes back":    func(r *policy.Request) { r.Credential = "team-b/../team-a/x" },
		"a path with a dot":                    func(r *policy.Request) { r.Credential = "./team-a/x" },
		"a path with two slashes":              func(r *policy.Request) { r.Credential = "team-a//x" },
		"a slash in front":                     func(r *policy.Request) { r.Credential = "/team-a/x" },
		"an escaped slash":                     func(r *policy.Request) { r.Credential = "team-a%2fx%2f..%2f/y" },
		"a backslash for a slash":              func(r *policy.Request) { r.Credential = `team-a\x` },
		"a neighbour with the same start":      func(r *policy.Request) { r.Credential = "team-ab/x" },
		"the folder itself":                    func(r *policy.Request) { r.Credential = "team-a" },
		"capitals":                             func(r *policy.Request) { r.Credential = "Team-A/x" },
		"a look-alike letter":                  func(r *policy.Request) { r.Credential = "teаm-a/x" },
		"a letter of full width":               func(r *policy.Request) { r.Credential = "team-ａ/x" },
		"a hyphen that is none":                func(r *policy.Request) { r.Credential = "team‐a/x" },
		"a zero-width joiner":                  func(r *policy.Request) { r.Credential = "team-a\u200d/x" },
		"a NUL":                                func(r *policy.Request) { r.Credential = "team-b\x00team-a/x" },
		"an OAuth client that climbs out":      func(r *policy.Request) { r.OAuthClient = "team-a/../team-b/app" },
		"an identity in capitals":              func(r *policy.Request) { r.Identity = "spiffe://example.org/job/A" },
		"a scheme in capitals":                 func(r *policy.Request) { r.Identity = "SPIFFE://example.org/job/a" },
		"a trust domain in capitals":           func(r *policy.Request) { r.Identity = "spiffe://Example.org/job/a" },
		"a trust domain with a dot behind":     func(r *policy.Request) { r.Identity = "spiffe://example.org./job/a" },
		"a trust domain that ends alike":       func(r *policy.Request) { r.Identity = "spiffe://evil-example.org/job/a" },
		"a trust domain that begins alike":     func(r *policy.Request) { r.Identity = "spiffe://example.org.evil.example/job/a" },
		"an identity that climbs out":          func(r *policy.Request) { r.Identity = "spiffe://example.org/ns/x/../y/job" },
		"an identity with a slash behind":      func(r *policy.Request) { r.Identity = "spiffe://example.org/job/a/" },
		"an identity with a look-alike letter": func(r *policy.Request) { r.Identity = "spiffe://example.org/jоb/a" },
		"a scope in capitals":                  func(r *policy.Request) { r.Scopes = []string{"FILES.read"} },
		"two scopes in one":                    func(r *policy.Request) { r.Scopes = []string{"files.read admin/x"} },
		"a subject of another domain behind":   func(r *policy.Request) { r.Subject = "ann@example.org@evil.example" },
		"a subject of a domain that ends so":   func(r *policy.Request) { r.Subject = "ann@evil-example.org" },
		"a subject in capitals":                func(r *policy.Request) { r.Subject = "ann@EXAMPLE.org" },
		"an audience with another host":        func(r *policy.Request) { r.Audience = "https://api.example.org.evil.example/v1" },
		"an audience with a user in front":     func(r *policy.Request) { r.Audience = "https://api.example.org@evil.example/v1" },
		"an audience a folder deeper":          func(r *policy.Request) { r.Audience = "https://api.example.org/v1/admin" },
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			spoil(&r)
			if d := p.Decide(r); d.Allowed {
				t.Errorf("%+v was allowed", r)
			}
		})
	}
}

func TestS25APatternThatIsNotCanonicalIsRefused(t *testing.T) {
	for _, bad := range []string{"Team-A/*", "team-а/*", "/team-a/*", "team-a/", "team-a//x", `team-a\\x`, "team-a/%2e", "team-a/\\u200dx"} {
		refused(t, head+`  - {name: a, identities: ["spiffe://example.org/a"], actions: [token.get], credentials: ["`+bad+`"]}`+"\n", "line 3", "credentials")
	}
}

func TestS33PolicyFileThatIsDamagedIsRefused(t *testing.T) {
	rule := strings.TrimPrefix(full(""), head)
	for name, text := range map[string]string{
		"empty":                       "",
		"blanks":                      "  \n\n",
		"only a comment":              "# rules: []\n",
		"a null":                      "null\n",
		"no rules":                    "version: 1\n",
		"an empty list of rules":      "version: 1\nrules: []\n",
		"an unknown field":            full("    admin: true\n"),
		"an unknown field on top":     "allow_all: true\n" + full(""),
		"a field in capitals":         strings.Replace(full(""), "credentials", "Credentials", 1),
		"the same rule twice":         full(rule),
		"the same name twice":         full(strings.Replace(rule, `["a"]`, `["b"]`, 1)),
		"the same content twice":      full(strings.Replace(rule, "name: a", "name: b", 1)),
		"a key twice":                 full("    credentials: [\"**\"]\n"),
		"rules twice":                 full("rules: []\n"),
		"a second document":           full("---\n" + full("")),
		"cut in the middle of a rule": full("")[:len(full(""))-len(`ls: ["a"]`+"\n    scopes: [\"s\"]\n")],
		"an empty list in a rule":     full("    subjects: []\n"),
		"a merge key":                 full("    <<: *all\n"),
		"bytes that are no text":      full("") + "\xff\xfe",
	} {
		t.Run(name, func(t *testing.T) {
			p, err := policy.Parse([]byte(text))
			if err == nil || p != nil {
				t.Fatalf("got policy %v and error %v, want an error alone", p, err)
			}
			for _, a := range policy.Actions() { // and what is left is no policy that allows all
				r := policy.Request{Identity: "spiffe://example.org/job/a", Action: a, Credential: "a", OAuthClient: "a", Scopes: []string{"s"}}
				if p.Decide(r).Allowed || p.Grants(r.Identity, a) {
					t.Errorf("%s was allowed", a)
				}
			}
		})
	}
}

func TestS33ADamagedFileLeavesTheLastGoodPolicyInForce(t *testing.T) {
	path, f := load(t)
	may := policy.Request{Identity: "spiffe://example.org/job/a", Action: policy.TokenGet, Credential: "a", Scopes: []string{"s"}}
	mayNot := may
	mayNot.Credential = "b"
	for _, text := range []string{"", "version: 1\nrules: []\n", full("    admin: true\n"), full(strings.TrimPrefix(full(""), head))} {
		write(t, path, text)
		if changed, err := f.Reload(); changed || err == nil {
			t.Errorf("%q: got changed %v and error %v", text, changed, err)
		}
		if !f.Current().Decide(may).Allowed || f.Current().Decide(mayNot).Allowed {
			t.Errorf("%q: what was allowed before is denied, or the other way round", text)
		}
	}
}

// The parser takes minutes for these, or the whole stack, which nothing recovers from.
func TestAttackListsWithoutEndAreRefusedUnread(t *testing.T) {
	for name, text := range map[string]string{
		"brackets":       strings.Repeat("[", policy.MaxFileBytes),
		"brackets below": strings.Repeat("[\n", policy.MaxFileBytes/2),
		"braces":         strings.Repeat("{a: ", policy.MaxFileBytes/4),
		"dashes":         strings.Repeat("- ", policy.MaxFileBytes/2),
		"tabs":           strings.Repeat("-\t", policy.MaxFileBytes/2),
	} {
		if _, err := policy.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "more than 1000 deep") {
			t.Errorf("%s: got %.200v, want it refused for its depth", name, err)
		}
	}
	flat := `["spiffe://example.org/worker/a-b"` + strings.Repeat(`, "spiffe://example.org/worker/a-b - c"`, 900) + "]"
	_, err := policy.Parse([]byte("version: 1\nrules:\n  - name: a\n    identities: " + flat + "\n    actions: [\"token.*\"]\n    credentials: [\"x\"]\n"))
	if err != nil && strings.Contains(err.Error(), "deep") {
		t.Errorf("got %v for a list that is long and not deep", err)
	}
}
