package tokenbroker_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/tokenbroker/tokenbroker"
)

const canary = "canary-3f9a"

// holders are values that contain a secret at some depth.
func holders() map[string]any {
	s := tokenbroker.NewSecret(canary)
	return map[string]any{
		"a secret":            s,
		"a pointer to one":    &s,
		"a slice":             []tokenbroker.Secret{s},
		"a map":               map[string]tokenbroker.Secret{"k": s},
		"a map key":           map[tokenbroker.Secret]string{s: "v"},
		"a token":             tokenbroker.Token{AccessToken: s},
		"a grant":             tokenbroker.Grant{RefreshToken: s, Previous: s},
		"a client":            tokenbroker.OAuthClient{Secrets: []tokenbroker.ClientSecret{{Secret: s}}},
		"an outcome":          tokenbroker.Outcome{Token: &tokenbroker.Token{AccessToken: s}, RefreshToken: s},
		"unexported fields":   hide(),
		"an adoption":         tokenbroker.Adoption{RefreshToken: s},
		"an exchange request": tokenbroker.ExchangeRequest{RefreshToken: s, Secret: tokenbroker.ClientSecret{Secret: s}},
		"an exchange reply":   tokenbroker.ExchangeReply{RefreshToken: s, Token: &tokenbroker.Token{AccessToken: s}},
	}
}

// hidden holds secrets where fmt passes over their methods: in fields that are not exported.
type hidden struct {
	secret  tokenbroker.Secret
	pointer *tokenbroker.Secret
	inner   struct{ token *tokenbroker.Token }
	any     any
	list    []tokenbroker.Secret
	keys    map[tokenbroker.Secret]int
}

func hide() hidden {
	s := tokenbroker.NewSecret(canary)
	h := hidden{secret: s, pointer: &s, any: s, list: []tokenbroker.Secret{s}, keys: map[tokenbroker.Secret]int{s: 1}}
	h.inner.token = &tokenbroker.Token{AccessToken: s}
	return h
}

func TestS19ASecretPrintsUnderNoVerb(t *testing.T) {
	for name, v := range holders() {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v", "%10v", "%-10s", "%!"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, canary) || strings.Contains(got, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s under %s: got %q, want no secret in it", name, verb, got)
			}
		}
	}
}

func TestS19ASecretSurvivesNoEncoder(t *testing.T) {
	for name, v := range holders() {
		var text bytes.Buffer
		slog.New(slog.NewJSONHandler(&text, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&text, nil)).Info("x", "v", v)
		if name != "a map key" {
			b, err := json.Marshal(v)
			if err != nil {
				t.Errorf("%s as JSON: %v", name, err)
			}
			text.Write(b)
		}
		if b, err := yaml.Marshal(v); err == nil {
			text.Write(b)
		}
		if b, err := xml.Marshal(v); err == nil {
			text.Write(b)
		}
		if strings.Contains(text.String(), canary) {
			t.Errorf("%s: an encoder wrote the secret: %s", name, text.String())
		}
	}
}

// reach collects all bytes that a printer can come by, which walks by reflection wherever pointers lead, exported or not.
func reach(v reflect.Value, seen map[uintptr]bool, out *bytes.Buffer) {
	switch v.Kind() {
	case reflect.String:
		out.WriteString(v.String())
	case reflect.Pointer:
		if !v.IsNil() && !seen[v.Pointer()] {
			seen[v.Pointer()] = true
			reach(v.Elem(), seen, out)
		}
	case reflect.Interface:
		if !v.IsNil() {
			reach(v.Elem(), seen, out)
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			reach(field, seen, out)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			reach(v.Index(i), seen, out)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			reach(it.Key(), seen, out)
			reach(it.Value(), seen, out)
		}
	case reflect.Uint8:
		out.WriteByte(byte(v.Uint()))
	default:
	}
}

func TestS19ReflectionReachesNoSecret(t *testing.T) {
	control := &bytes.Buffer{}
	reach(reflect.ValueOf(struct{ s *string }{new(string(canary))}), map[uintptr]bool{}, control)
	if control.String() != canary {
		t.Fatalf("the walk does not reach a plain string behind a pointer: %q", control)
	}
	for name, v := range holders() {
		out := &bytes.Buffer{}
		reach(reflect.ValueOf(v), map[uintptr]bool{}, out)
		if strings.Contains(out.String(), canary) {
			t.Errorf("%s: reflection came by the secret", name)
		}
	}
}

// TestS19OneKnownSecretGivesNothingOfAnother: were all masked with one stream, two masks and one value would give the other.
func TestS19OneKnownSecretGivesNothingOfAnother(t *testing.T) {
	printed := func(s tokenbroker.Secret) string {
		var out bytes.Buffer
		reach(reflect.ValueOf(s), map[uintptr]bool{}, &out)
		return out.String()
	}
	known, other := strings.Repeat("k", len(canary)), canary
	a, b := printed(tokenbroker.NewSecret(known)), printed(tokenbroker.NewSecret(other))
	if len(a) != len(b) || a == "" {
		t.Fatalf("got %d and %d bytes", len(a), len(b))
	}
	var got []byte
	for i := range len(known) {
		at := len(a) - len(known) + i
		got = append(got, a[at]^b[at]^known[i])
	}
	if string(got) == other {
		t.Errorf("two masks and one value give the other: %q", got)
	}
}

func TestASecretIsRevealedOnlyOnDemand(t *testing.T) {
	s := tokenbroker.NewSecret(canary)
	if got := s.Reveal(); got != canary {
		t.Errorf("got %q, want %q", got, canary)
	}
	if s.IsZero() || !(tokenbroker.Secret{}).IsZero() {
		t.Errorf("IsZero: got %v for a secret and %v for none", s.IsZero(), tokenbroker.Secret{}.IsZero())
	}
	if s != tokenbroker.NewSecret(canary) || s == tokenbroker.NewSecret("other") {
		t.Errorf("equal secrets have to compare equal, others not")
	}
	if got := s.String() + s.GoString(); got != "[redacted][redacted]" {
		t.Errorf("got %q, want it redacted twice", got)
	}
}

func TestAProblemSaysWhatItIsAbout(t *testing.T) {
	err := fmt.Errorf("get a token: %w", &tokenbroker.Problem{Err: tokenbroker.ErrThrottled, Detail: "wait a little"})
	if !errors.Is(err, tokenbroker.ErrThrottled) || errors.Is(err, tokenbroker.ErrUpstream) {
		t.Errorf("%v: want it to be ErrThrottled and nothing else", err)
	}
	if got, want := err.Error(), "get a token: the provider asks us to wait: wait a little"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (&tokenbroker.Problem{Err: tokenbroker.ErrDisabled}).Error(), tokenbroker.ErrDisabled.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var p *tokenbroker.Problem
	if err := tokenbroker.Invalid("scopes", errors.New("too many")); !errors.As(err, &p) || p.Field != "scopes" || !errors.Is(err, tokenbroker.ErrInvalidArgument) {
		t.Errorf("got %#v, want a Problem with the field", err)
	}
	if tokenbroker.Invalid("scopes", nil) != nil {
		t.Errorf("nothing wrong must be no error")
	}
}
