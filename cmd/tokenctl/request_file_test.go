package main

import (
	"strings"
	"testing"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestARequestIsReadStrictly(t *testing.T) {
	for name, text := range map[string]string{
		"YAML": "credential: a\nrefreshToken: hush-1\nspec: {provider: p, scopes: [x, y], labels: {k: v}}\n",
		"JSON": "{\n\t\"credential\": \"a\", \"refresh_token\": \"hush-1\",\n\t\"spec\": {\"provider\": \"p\", \"scopes\": [\"x\", \"y\"], \"labels\": {\"k\": \"v\"}}}",
	} {
		var req tokenbrokerv1.CreateCredentialRequest
		if err := parseRequest("f", []byte(text), &req); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if req.GetRefreshToken() != "hush-1" {
			t.Errorf("%s: the secret was not read", name)
		}
		if req.GetCredential() != "a" || len(req.GetSpec().GetScopes()) != 2 || req.GetSpec().GetLabels()["k"] != "v" {
			t.Errorf("%s: the rest was not read", name)
		}
	}
}

func TestNoErrorOfARequestQuotesItsSecret(t *testing.T) {
	for _, text := range []string{
		"refreshToken: hush-1\nunknown: 1", "refreshToken: [hush-1]", "refreshToken: {hush-1: 1}", "refreshToken: hush-1\nrefreshToken: hush-2",
		"refreshToken: \"hush-1\ncredential: x", "refreshToken: *hush-1", "refreshToken: hush-1\n\tcredential: x", `{"refreshToken": "hush-1"`,
		"- hush-1", "hush-1", "refreshToken: hush-1\nspec: 5", "refreshToken: !!binary hush-1", "refreshToken: hush-1\n1: 2", "refreshToken: \"\\hush-1\"",
	} {
		var req tokenbrokerv1.CreateCredentialRequest
		err := parseRequest("f", []byte(text), &req)
		if err == nil {
			t.Errorf("%q: got no error", text)
			continue
		}
		if strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{"", "{}", "credential: a", "refreshToken: hush", "spec:\n  labels: {a: b}", "[", "&a *a", "a: 1\na: 2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var req tokenbrokerv1.CreateCredentialRequest
		if err := parseRequest("f", data, &req); err != nil && !strings.HasPrefix(err.Error(), "f") {
			t.Errorf("%v does not name the file", err)
		}
	})
}

func TestLabelsAreKeysWithValues(t *testing.T) {
	got, err := parsePairs("label", []string{"a=1", "b=", "c=x=y", ""})
	if err != nil || len(got) != 3 || got["c"] != "x=y" || got["b"] != "" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"a", "=1"} {
		if _, err := parsePairs("label", []string{bad}); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
	if _, err := parsePairs("label", []string{"a=1", "a=2"}); err == nil {
		t.Error("a key that is there twice: got no error")
	}
}
