package conformance_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/tokenbroker/tokenbroker/provider"
)

// marker is in every text that a fixture's provider writes, so that a test can look for it where no such text may be.
const marker = "~said~"

// fixture is one named quirk and what the user is to see of it.
type fixture struct {
	Name     string            `yaml:"name"`     // a sentence
	Rows     []string          `yaml:"rows"`     // of the table in table_test.go
	Provider string            `yaml:"provider"` // the built-in profile that has to do the right thing; "" = generic
	With     map[string]string `yaml:"with"`     // its variable parts
	Profile  *provider.Profile `yaml:"profile"`  // what an operator's config file lays over it; nil = nothing
	Client   client            `yaml:"client"`
	Grant    credential        `yaml:"credential"`
	Sandbox  *fake             `yaml:"sandbox"` // answers where a step has no replies; nil = replies only
	Steps    []step            `yaml:"steps"`
}

// client is the OAuth client.
type client struct {
	Auth string `yaml:"auth"` // auth method; "" = client_secret_basic
	Key  bool   `yaml:"key"`  // it is a service account with a Google key file, made by the test
	Keys int    `yaml:"keys"` // so many further keys are added
}

// credential is the credential under test, "example/it".
type credential struct {
	Type       string            `yaml:"grant"` // "" = refresh_token
	Scopes     []string          `yaml:"scopes"`
	Subject    string            `yaml:"subject"`
	Audience   string            `yaml:"audience"`
	Parameters map[string]string `yaml:"parameters"`
	Token      string            `yaml:"refresh_token"` // "" = "RT-first", with the sandbox one of its own
}

// fake is an issuer of the sandbox in place of replies, where what matters is what the provider keeps.
type fake struct {
	Rotation    string            `yaml:"rotation"` // strict, grace or none
	Grace       provider.Duration `yaml:"grace"`
	KillsOld    bool              `yaml:"kills_old"`
	AccessLife  provider.Duration `yaml:"access_life"`
	RefreshLife provider.Duration `yaml:"refresh_life"`
}

// step is something that happens, and what is to be seen of it.
type step struct {
	Do        string            `yaml:"do"` // verb and argument, see runner.act
	Scopes    []string          `yaml:"scopes"`
	Subject   string            `yaml:"subject"`
	Audience  string            `yaml:"audience"`
	MinLife   provider.Duration `yaml:"min_validity"`
	Patience  provider.Duration `yaml:"patience"` // the caller's deadline; 0 = a minute
	Unchecked bool              `yaml:"unchecked"`
	Replies   []reply           `yaml:"replies"`
	Want      want              `yaml:"want"`
}

// reply is what the upstream does with one request.
type reply struct {
	Status  int               `yaml:"status"`  // 0 = 200
	Headers map[string]string `yaml:"headers"` // Content-Type: application/json and Date: now, unless they are given; "" removes one
	Body    string            `yaml:"body"`
	Pad     int               `yaml:"pad"`    // so many blanks follow it
	Gzip    bool              `yaml:"gzip"`   // it is packed
	Delay   provider.Duration `yaml:"delay"`  // before the first byte
	Drip    provider.Duration `yaml:"drip"`   // before each byte
	Fault   string            `yaml:"fault"`  // see faults
	Always  bool              `yaml:"always"` // also to all later requests, until a step has replies of its own
}

// faults are what may happen to a request in place of a reply.
var faults = []string{
	"",
	"refused", // no connection: nothing is sent
	"reset",   // sent, and the connection breaks
	"timeout", // sent, and nothing comes
	"cut",     // the body breaks off
	"pass",    // the sandbox answers
	"lost",    // the sandbox does what was asked, and its answer is lost
}

// want is what is to be seen of a step. What is left out is not looked at.
type want struct {
	Token     string             `yaml:"token"` // that the caller got
	Error     string             `yaml:"error"` // reason of the ErrorInfo
	Field     string             `yaml:"field"` // that the error speaks of
	Says      string             `yaml:"says"`  // part of the error's text
	WaitMin   provider.Duration  `yaml:"retry_after_at_least"`
	WaitMax   provider.Duration  `yaml:"retry_after_at_most"`
	Outcome   string             `yaml:"outcome"` // of a report: newer, wait or counted
	Life      *provider.Duration `yaml:"expires_in"`
	Estimated *bool              `yaml:"estimated"`
	Scopes    []string           `yaml:"scopes"`
	Metadata  map[string]string  `yaml:"metadata"`

	State    string             `yaml:"state"`  // of the credential after the step
	Action   string             `yaml:"action"` // recovery action that goes with it
	Code     string             `yaml:"code"`
	Cause    string             `yaml:"cause"`
	Advice   string             `yaml:"advice"` // part of the sentence that the operator reads
	Serial   uint64             `yaml:"serial"`
	EndsIn   *provider.Duration `yaml:"refresh_token_ends_in"` // to the hour
	Warnings *int               `yaml:"warnings"`              // of the refresh token's end, in this step
	Skew     *provider.Duration `yaml:"clock_skew"`
	Variants int                `yaml:"variants"`

	Sends    *int     `yaml:"sends"` // requests that left in this step
	SendsMin int      `yaml:"sends_at_least"`
	SendsMax int      `yaml:"sends_at_most"`
	Sent     sent     `yaml:"sent"`   // the last of them
	Pushed   string   `yaml:"pushed"` // token that the subscriber was sent last, within a second of the reply
	Told     string   `yaml:"told"`   // state that the subscriber was told last
	Lives    []string `yaml:"lives"`  // sandbox: "current" or "first": the token is still valid there
	Dead     []string `yaml:"dead"`
}

// sent is what a request is to look like. A value "*" means any.
type sent struct {
	Method  string            `yaml:"method"`
	URL     string            `yaml:"url"` // without its query
	Query   map[string]string `yaml:"query"`
	Headers map[string]string `yaml:"headers"` // "" = absent
	Form    map[string]string `yaml:"form"`    // "" = absent
	JSON    map[string]string `yaml:"json"`
}

// load reads all fixtures.
func load(t *testing.T) []fixture {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find fixtures: %v, %d files", err, len(files))
	}
	var all []fixture
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		list, err := parse(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, list...)
	}
	return all
}

// parse reads one file, strictly.
func parse(data []byte) ([]fixture, error) {
	var list []fixture
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(&list); err != nil {
		return nil, err
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	var problems []error
	seen := map[string]bool{}
	for _, f := range list {
		if seen[f.Name] {
			problems = append(problems, fmt.Errorf("%q: there are two of that name", f.Name))
		}
		seen[f.Name] = true
		if err := f.check(); err != nil {
			problems = append(problems, fmt.Errorf("%q: %w", f.Name, err))
		}
	}
	return list, errors.Join(problems...)
}

// check says what is wrong with a fixture, so that none can pass because it looks at nothing.
func (f fixture) check() error {
	switch {
	case strings.Count(f.Name, " ") < 2:
		return errors.New("name: a sentence is wanted")
	case len(f.Rows) == 0:
		return errors.New("rows: which rows of the table is it for?")
	case len(f.Steps) == 0:
		return errors.New("steps: there are none")
	}
	for _, row := range f.Rows {
		if !slices.ContainsFunc(table, func(r rowOfTable) bool { return r.id == row }) {
			return fmt.Errorf("rows: the table has no %q", row)
		}
	}
	for i, s := range f.Steps {
		if err := s.check(i == len(f.Steps)-1); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, s.Do, err)
		}
	}
	return nil
}

func (s step) check(last bool) error {
	verb, _, _ := strings.Cut(s.Do, " ")
	asks := slices.Contains([]string{"get", "report", "refresh", "create"}, verb)
	switch {
	case asks && s.Want.Token == "" && s.Want.Error == "" && verb != "refresh":
		return errors.New("want: a token or an error has to be expected")
	case last && s.Want.State == "" && s.Want.Error == "":
		return errors.New("want.state: is required in the last step")
	case s.Want.Action == "" && slices.Contains([]string{"DEGRADED", "REAUTHORIZE", "MISCONFIGURED", "UNCERTAIN"}, s.Want.State):
		return errors.New("want.action: is required with that state")
	}
	for i, r := range s.Replies {
		if slices.ContainsFunc(r.said(), func(text string) bool { return !strings.Contains(text, marker) }) {
			return fmt.Errorf("replies[%d]: each text that the provider wrote has to hold %s", i, marker)
		}
		if !slices.Contains(faults, r.Fault) {
			return fmt.Errorf("replies[%d]: unknown fault %q", i, r.Fault)
		}
	}
	return nil
}

var sentence = regexp.MustCompile(`(?:"(?:error_description|message|detail|reason|summary|hint)"\s*:\s*"|error_description=)([^"&]+)`)

// said is the provider's own texts in a reply: the descriptions of its errors, or all of a page.
func (r reply) said() []string {
	body := strings.TrimSpace(r.Body)
	var texts []string
	for _, m := range sentence.FindAllStringSubmatch(body, -1) {
		texts = append(texts, m[1])
	}
	if body != "" && !strings.HasPrefix(strings.TrimPrefix(body, "\ufeff"), "{") && !strings.Contains(body, "=") {
		texts = append(texts, body)
	}
	return texts
}

func (s step) patience() time.Duration {
	if s.Patience > 0 {
		return time.Duration(s.Patience)
	}
	return time.Minute
}
