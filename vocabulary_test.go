package tokenbroker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
)

func TestValidateName(t *testing.T) {
	for name, ok := range map[string]bool{
		"google/reports-drive": true, "a": true, "0": true, "a.b_c-d/e": true, "a/b/c/d": true, "a..b": true,
		strings.Repeat("a", 128): true, strings.Repeat("a", 129): false, strings.Repeat("a", 1<<20): false,
		"": false, "/": false, "a/": false, "/a": false, "a//b": false, "A": false, "a b": false, "..": false, "a/../b": false,
		".a": false, "a/.b": false, "-a": false, "_a": false, "ä": false, "a\x00b": false, "a\n": false, "\u0430": false, "a*": false,
	} {
		if err := tokenbroker.ValidateName(name); (err == nil) != ok {
			t.Errorf("ValidateName(%.40q): got %v, want valid = %v", name, err, ok)
		}
	}
}

func TestValidateScopes(t *testing.T) {
	many := slices.Repeat([]string{"s"}, tokenbroker.MaxScopes)
	for _, tc := range []struct {
		name   string
		scopes []string
		ok     bool
	}{
		{"none", nil, true},
		{"an https scope", []string{"https://www.googleapis.com/auth/drive.readonly"}, true},
		{"every allowed character", []string{"!#$%&'()*+,-./09:;<=>?@AZ[]^_`az{|}~"}, true},
		{"as many as allowed", many, true},
		{"one more", append(many, "s"), false},
		{"a thousand", slices.Repeat([]string{"s"}, 1000), false},
		{"an empty one", []string{"a", ""}, false},
		{"two in one", []string{"a b"}, false},
		{"a quote", []string{`a"`}, false},
		{"a backslash", []string{`a\`}, false},
		{"a control character", []string{"a\x7f"}, false},
		{"a letter beyond ASCII", []string{"ä"}, false},
		{"a long one", []string{strings.Repeat("a", tokenbroker.MaxScopeBytes+1)}, false},
	} {
		if err := tokenbroker.ValidateScopes(tc.scopes); (err == nil) != tc.ok {
			t.Errorf("%s: got %v, want valid = %v", tc.name, err, tc.ok)
		}
	}
}

func TestValidateTexts(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		ok   bool
	}{
		{"a subject", tokenbroker.ValidateSubject("someone@example.org"), true},
		{"no subject", tokenbroker.ValidateSubject(""), true},
		{"a long subject", tokenbroker.ValidateSubject(strings.Repeat("a", 321)), false},
		{"a subject with a line feed", tokenbroker.ValidateSubject("a\nb"), false},
		{"a subject that is no UTF-8", tokenbroker.ValidateSubject("\xff"), false},
		{"an audience", tokenbroker.ValidateAudience("https://api.example.org/"), true},
		{"a long audience", tokenbroker.ValidateAudience(strings.Repeat("a", 1025)), false},
		{"labels", tokenbroker.ValidateLabels(map[string]string{"team": "ops", "note": ""}), true},
		{"a label without a key", tokenbroker.ValidateLabels(map[string]string{"": "ops"}), false},
		{"a long label", tokenbroker.ValidateLabels(map[string]string{"k": strings.Repeat("v", 200)}), false},
	} {
		if (tc.err == nil) != tc.ok {
			t.Errorf("%s: got %v, want valid = %v", tc.name, tc.err, tc.ok)
		}
	}
	labels := map[string]string{}
	for i := range tokenbroker.MaxLabels + 1 {
		labels[strings.Repeat("k", i+1)] = ""
	}
	if err := tokenbroker.ValidateLabels(labels); err == nil {
		t.Errorf("%d labels: want them refused", len(labels))
	}
}

func TestVariantsOfOneMeaningAreOne(t *testing.T) {
	a := tokenbroker.NewVariant([]string{"b", "a", "b"}, "sub", "aud")
	b := tokenbroker.NewVariant([]string{"a", "b"}, "sub", "aud")
	if a.Key() != b.Key() {
		t.Errorf("got keys %q and %q, want them alike", a.Key(), b.Key())
	}
	if diff := cmp.Diff([]string{"a", "b"}, a.Scopes); diff != "" {
		t.Errorf("scopes (-want +got):\n%s", diff)
	}
}

func TestVariantsOfOtherMeaningAreApart(t *testing.T) {
	seen := map[string]tokenbroker.Variant{}
	for _, v := range []tokenbroker.Variant{
		{}, {Subject: "a"}, {Audience: "a"}, {Scopes: []string{"a"}}, {Scopes: []string{"a", "b"}}, {Scopes: []string{"ab"}},
		{Subject: "a", Audience: "b"}, {Subject: "ab"}, {Audience: "ab"}, {Subject: "1:a"}, {Subject: "0:"}, {Audience: "1:a"},
		{Subject: "a1:b"}, {Subject: "a", Scopes: []string{"b"}}, {Audience: "a", Scopes: []string{"b"}},
	} {
		if other, ok := seen[v.Key()]; ok {
			t.Errorf("%+v and %+v share the key %q", v, other, v.Key())
		}
		seen[v.Key()] = v
	}
}

func FuzzVariantKey(f *testing.F) {
	f.Add("a", "b", "c", "ab", "", "c")
	f.Add("1:a", "", "", "", "1:a", "")
	f.Fuzz(func(t *testing.T, sub1, aud1, scope1, sub2, aud2, scope2 string) {
		a := tokenbroker.NewVariant([]string{scope1}, sub1, aud1)
		b := tokenbroker.NewVariant([]string{scope2}, sub2, aud2)
		if (a.Key() == b.Key()) != cmp.Equal(a, b) {
			t.Errorf("%+v and %+v: keys %q and %q", a, b, a.Key(), b.Key())
		}
	})
}

func TestACredentialFillsWhatIsLeftOut(t *testing.T) {
	c := tokenbroker.Credential{Scopes: []string{"b", "a"}, Subject: "s", Audience: "d"}
	for _, tc := range []struct {
		name          string
		scopes        []string
		subject, aud  string
		wantScopes    []string
		wantSub, want string
	}{
		{"nothing given", nil, "", "", []string{"a", "b"}, "s", "d"},
		{"scopes given", []string{"a"}, "", "", []string{"a"}, "s", "d"},
		{"all given", []string{"x"}, "y", "z", []string{"x"}, "y", "z"},
	} {
		got := c.Variant(tc.scopes, tc.subject, tc.aud)
		want := tokenbroker.Variant{Scopes: tc.wantScopes, Subject: tc.wantSub, Audience: tc.want}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
	if !slices.Equal(c.Scopes, []string{"b", "a"}) {
		t.Errorf("the credential's own scopes were reordered: %v", c.Scopes)
	}
}

func TestOrdersCompareByGenerationFirst(t *testing.T) {
	orders := []tokenbroker.Order{{}, {0, 1}, {1, 0}, {1, 5}, {2, 0}, {2, 1}, {1 << tokenbroker.EpochShift, 0}}
	for i, a := range orders {
		for j, b := range orders {
			want := min(1, max(-1, i-j))
			if got := a.Compare(b); got != want {
				t.Errorf("%v.Compare(%v): got %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestEveryStateAsksForSomething(t *testing.T) {
	for state, want := range map[tokenbroker.State]tokenbroker.Recovery{
		tokenbroker.StatePending:       tokenbroker.RecoveryRetry,
		tokenbroker.StateReady:         tokenbroker.RecoveryNone,
		tokenbroker.StateDegraded:      tokenbroker.RecoveryRetry,
		tokenbroker.StateReauthorize:   tokenbroker.RecoveryReauthorize,
		tokenbroker.StateMisconfigured: tokenbroker.RecoveryFixConfiguration,
		tokenbroker.StateDisabled:      tokenbroker.RecoveryAskOperator,
		tokenbroker.StateUncertain:     tokenbroker.RecoveryRetry,
		tokenbroker.StateQuarantined:   tokenbroker.RecoveryAskOperator,
	} {
		if got := state.Recovery(); got != want {
			t.Errorf("%s: got %s, want %s", state, got, want)
		}
	}
}

func TestAFailureSaysItsClassAndCode(t *testing.T) {
	f := &tokenbroker.Failure{Class: tokenbroker.ClassDeadGrant, Code: "invalid_grant", HTTPStatus: 400}
	if got, want := f.Error(), "token endpoint: invalid_grant (dead_grant, HTTP 400)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	f = &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: "connect_refused"}
	if got, want := f.Error(), "token endpoint: connect_refused (transient)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for code, want := range map[string]bool{"invalid_scope": true, "invalid_target": true, "downscope_not_confirmed": true,
		"downscope_not_supported": true, "subject_not_supported": true, "invalid_grant": false, "invalid_client": false, "": false} {
		if got := (&tokenbroker.Failure{Code: code}).OfVariant(); got != want {
			t.Errorf("OfVariant of %q: got %v, want %v", code, got, want)
		}
	}
}

func TestTheLifeOfATokenCountsFromItsRequest(t *testing.T) {
	sent := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := (tokenbroker.Token{Obtained: sent, Expiry: sent.Add(time.Hour)}).Life(); got != time.Hour {
		t.Errorf("got %v, want 1h", got)
	}
}
