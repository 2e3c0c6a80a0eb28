package provider_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/provider"
)

// TestEachFieldIsInTheManual keeps docs/configuration.md complete.
func TestEachFieldIsInTheManual(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Providers\n")
	for field := range reflect.TypeFor[provider.Profile]().Fields() {
		if key := field.Tag.Get("yaml"); !strings.Contains(section, "`"+key+"`") {
			t.Errorf("docs/configuration.md does not speak of %s", key)
		}
	}
}

// TestTheManualsExamplesAreGood reads each example of providers in the documents as the broker would.
func TestTheManualsExamplesAreGood(t *testing.T) {
	example := regexp.MustCompile("(?s)```yaml\n(providers:\n.*?)```")
	for _, name := range []string{"configuration.md", "providers.md"} {
		text, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		found := example.FindAllSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s has no example", name)
		}
		for _, m := range found {
			if errs := findings(provider.Lint("it", m[1]), provider.SeverityError); errs != "" {
				t.Errorf("%s: %s\n%s", name, errs, m[1])
			}
		}
	}
}

// TestTheTableOfGrantsNamesEachGrant keeps docs/choosing-a-grant.md complete, and its providers real.
func TestTheTableOfGrantsNamesEachGrant(t *testing.T) {
	text, err := os.ReadFile("../docs/choosing-a-grant.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, grant := range []string{"authorization_code", "device_code", "refresh_token", "client_credentials", "jwt_bearer", "self_signed_jwt",
		"token_exchange", "google_adc", "static"} {
		if !strings.Contains(string(text), "| `"+grant+"`") {
			t.Errorf("no row for %s", grant)
		}
	}
	for _, m := range regexp.MustCompile(`--provider ([a-z0-9-]+)`).FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(provider.Builtins(), m[1]) {
			t.Errorf("there is no provider %s", m[1])
		}
	}
}
