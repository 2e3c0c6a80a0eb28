package provider_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

// example is a configured profile of a built-in one, with an example for each part that has to be given.
func example(t *testing.T, name string) provider.Profile {
	t.Helper()
	base, ok := provider.Builtin(name)
	if !ok {
		t.Fatalf("there is no built-in profile %q", name)
	}
	p := provider.Profile{Base: name, With: map[string]string{}}
	for _, part := range base.Needs() {
		p.With[part] = base.Parts[part].Example
	}
	return p
}

// merged is a built-in profile as a credential of it meets it.
func merged(t *testing.T, name string) provider.Profile {
	t.Helper()
	c, err := provider.New(map[string]provider.Profile{"it": example(t, name)})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Profile("it")
	return p
}

func TestEachBuiltInProfileMergesChecksAndLints(t *testing.T) {
	for _, name := range provider.Builtins() {
		t.Run(name, func(t *testing.T) {
			p := merged(t, name)
			if strings.Contains(p.TokenEndpoint, "{") || p.TokenEndpoint != "" && !strings.HasPrefix(p.TokenEndpoint, "https://") {
				t.Errorf("token endpoint: %q", p.TokenEndpoint)
			}
			for _, f := range provider.LintProfile(name, example(t, name)) {
				if f.Severity == provider.SeverityError {
					t.Errorf("lint: %s", f.Text)
				}
			}
		})
	}
}

func TestEachBuiltInProfileTellsWhatAnOperatorNeeds(t *testing.T) {
	for _, name := range provider.Builtins() {
		t.Run(name, func(t *testing.T) {
			p, _ := provider.Builtin(name)
			base, _ := provider.Builtin(p.Base)
			if p.Title == "" || p.Title == base.Title || len(p.Notes) < 100 || p.Notes == base.Notes || len(p.Sources) == 0 {
				t.Errorf("title %q, %d bytes of notes, sources %q: each has to be its own", p.Title, len(p.Notes), p.Sources)
			}
			for _, s := range p.Sources {
				if !strings.HasPrefix(s, "https://") {
					t.Errorf("source %q is no URL", s)
				}
			}
			if len(p.Grants) == 0 {
				t.Error("no grants")
			}
			if p.AuthorizationEndpoint != "" && p.Knows("authorization_code") && !strings.Contains(strings.ToLower(p.Notes), "redirect") &&
				!strings.Contains(strings.ToLower(p.Notes), "callback") {
				t.Error("the notes do not say which redirect URI to register")
			}
			for part, is := range p.Parts {
				if is.About == "" || is.Example == "" {
					t.Errorf("part %s: about %q, example %q", part, is.About, is.Example)
				}
			}
		})
	}
}

func TestBuiltInProfilesThatNeedNothingAreThereByName(t *testing.T) {
	c, err := provider.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	names := c.Names()
	for _, want := range []string{"google", "entra", "github-app", "slack"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not there by name", want)
		}
	}
	for _, without := range []string{"generic", "okta", "auth0", "zoom-s2s"} {
		if slices.Contains(names, without) {
			t.Errorf("%s is there by name, though something has to be said first", without)
		}
	}
	if len(c.Configured()) != 0 || len(c.Warnings()) != 0 || !slices.Equal(c.Builtins(), names) {
		t.Errorf("configured %q, warnings %q", c.Configured(), c.Warnings())
	}
}
