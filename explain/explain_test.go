package explain_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/explain"
	"github.com/tokenbroker/tokenbroker/provider"
)

func TestEachEntrySaysAllThereIsToSay(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range explain.All() {
		if seen[e.Name] {
			t.Errorf("%s is there twice", e.Name)
		}
		seen[e.Name] = true
		if e.Title == "" || e.Recovery == "" || !strings.HasSuffix(e.Meaning, ".") || !ends(e.Do) {
			t.Errorf("%s: %+v", e.Name, e)
		}
		var code codes.Code
		if err := code.UnmarshalJSON([]byte(strconv.Quote(e.Status))); e.Status != "" && err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
		if (e.Kind == explain.KindReason || e.Kind == explain.KindState || e.Kind == explain.KindRemoval) != (e.Name == strings.ToUpper(e.Name)) {
			t.Errorf("%s is written like another kind than %s", e.Name, e.Kind)
		}
		if rest := e.Fill("a/b", "c"); strings.ContainsAny(rest, "{}") {
			t.Errorf("%s: the command has a place for something else: %q", e.Name, rest)
		}
	}
}

// ofConsents are the codes that a consent ends with, which a grant that nobody consents to does not have.
var ofConsents = []string{"account_selection_required", "code_missing", "repeated_parameter", "iss_missing", "token_in_callback", "authorization_pending",
	"expired_token", "account_mismatch", "account_not_named", "grant_expired", "unknown_error", "audit_unavailable", "id_token_unreadable", "id_token_wrong_nonce",
	"id_token_expired", "interrupted", "consent_needed", "no_refresh_token", "credential_gone", "device_not_supported", "redirect_uri_mismatch"}

// TestNobodyIsToldToConsentToAGrantThatIsBrought: there is nothing to consent to where somebody imported a refresh token, a password, a subject
// token or a token.
func TestNobodyIsToldToConsentToAGrantThatIsBrought(t *testing.T) {
	person := regexp.MustCompile(`(?i)consent |consent[.;]|connect (it|the)|install the app|{`)
	atProvider := []string{"user_not_preauthorized"} // consents of an assertion's subject, which do not come by the broker
	for grant, secret := range map[tokenbroker.GrantType]string{
		tokenbroker.GrantRefreshToken: "refresh token", tokenbroker.GrantStatic: "token or API key",
		tokenbroker.GrantPassword: "password", tokenbroker.GrantTokenExchange: "subject token",
	} {
		for _, e := range explain.All() {
			if e.Kind != explain.KindCause && e.Kind != explain.KindCode || slices.Contains(ofConsents, e.Name) || slices.Contains(atProvider, e.Name) {
				continue
			}
			do := e.DoFor(grant)
			if person.MatchString(do) || !ends(do) {
				t.Errorf("%s, %s: got %q", grant, e.Name, do)
			}
			if e.Recovery == tokenbroker.RecoveryReauthorize && !strings.Contains(do, secret) {
				t.Errorf("%s, %s: got %q, want to be told to bring a %s", grant, e.Name, do, secret)
			}
		}
	}
}

func TestWhatToDoFollowsTheGrant(t *testing.T) {
	for _, tt := range []struct {
		word  string
		grant tokenbroker.GrantType
		want  string
	}{
		{"token_expired_or_revoked", "", "Consent again. If it comes back every 7 days, publish the app (see app_in_testing)."},
		{"token_expired_or_revoked", tokenbroker.GrantAuthorizationCode, "Consent again. If it comes back every 7 days, publish the app (see app_in_testing)."},
		{"token_expired_or_revoked", tokenbroker.GrantDeviceCode, "Consent again. If it comes back every 7 days, publish the app (see app_in_testing)."},
		{"token_expired_or_revoked", tokenbroker.GrantRefreshToken, "Bring a new refresh token. If it comes back every 7 days, publish the app (see app_in_testing)."},
		{"password_changed", tokenbroker.GrantPassword, "Bring a new password."},
		{"revoked", tokenbroker.GrantClientCredentials, "Have it refreshed, if it is to be used any more."},
		{"invalid_grant", tokenbroker.GrantJWTBearer, "Check the key, the subject and the clock."},
		{"clock_skew", tokenbroker.GrantRefreshToken, "Set the clock of the broker's host (NTP). The broker measures the difference from the Date header and shows it."},
	} {
		if e, _ := explain.Lookup(tt.word); e.DoFor(tt.grant) != tt.want {
			t.Errorf("%s of %s: got %q, want %q", tt.word, tt.grant, e.DoFor(tt.grant), tt.want)
		}
	}
}

func ends(sentence string) bool {
	return strings.HasSuffix(sentence, ".") || strings.HasSuffix(sentence, ".)")
}

func TestLookupFindsAWordInAnyCase(t *testing.T) {
	for name, want := range map[string]explain.Kind{
		"REAUTHORIZATION_REQUIRED": explain.KindReason, "reauthorization_required": explain.KindReason, "ready": explain.KindState,
		"Invalid_Grant": explain.KindCode, "clock_skew": explain.KindCause, "canceled": explain.KindCode, "CANCELED": explain.KindReason,
	} {
		if e, ok := explain.Lookup(name); !ok || e.Kind != want {
			t.Errorf("%s: got %q (%t), want a %s", name, e.Kind, ok, want)
		}
	}
	for status, want := range map[string]string{"http_404": "http_4xx", "HTTP_503": "http_5xx", "http_5xx": "http_5xx"} {
		if e, _ := explain.Lookup(status); e.Name != want {
			t.Errorf("%s: got %+v, want %s", status, e, want)
		}
	}
	for _, word := range []string{"no such word", "http_200", "http_"} {
		if e, ok := explain.Lookup(word); ok {
			t.Errorf("%s: got %+v of a word that nobody uses", word, e)
		}
	}
}

func TestACauseSaysMoreThanItsCode(t *testing.T) {
	if e, ok := explain.Of("delegation_denied", "access_denied"); !ok || e.Name != "delegation_denied" {
		t.Errorf("got %+v, want the cause", e)
	}
	for _, cause := range []tokenbroker.Cause{"", "not_a_cause", "access_denied"} {
		if e, ok := explain.Of(cause, "access_denied"); !ok || e.Kind != explain.KindCode {
			t.Errorf("%q: got %+v, want the code", cause, e)
		}
	}
}

func TestACommandGetsItsNames(t *testing.T) {
	e := explain.Entry{Command: "tokenctl x {credential} --client {client}"}
	if got, want := e.Fill("google/drive", "acme"), "tokenctl x google/drive --client acme"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDelegationSaysWhereToClick(t *testing.T) {
	for _, name := range []string{"delegation_not_authorized", "delegation_scopes_not_authorized", "delegation_denied"} {
		e, _ := explain.Lookup(name)
		for _, want := range []string{"Security > Access and data control > API controls > Domain-wide delegation", "numeric client ID", "comma-delimited", "24 h"} {
			if !strings.Contains(e.Do, want) {
				t.Errorf("%s does not say %q: %q", name, want, e.Do)
			}
		}
	}
}

func TestEachStateOfACredentialHasAnEntry(t *testing.T) {
	for _, state := range []tokenbroker.State{
		tokenbroker.StatePending, tokenbroker.StateReady, tokenbroker.StateDegraded, tokenbroker.StateReauthorize,
		tokenbroker.StateMisconfigured, tokenbroker.StateDisabled, tokenbroker.StateUncertain, tokenbroker.StateQuarantined,
	} {
		if e, ok := explain.Lookup(string(state)); !ok || e.Kind != explain.KindState || e.Recovery != state.Recovery() {
			t.Errorf("%s: got %+v, want the recovery %s", state, e, state.Recovery())
		}
	}
}

func TestEachCauseComesOfAProfile(t *testing.T) {
	used := map[string]bool{"app_in_testing": true} // no reply tells it apart; another cause points to it
	for _, name := range provider.Builtins() {
		p, _ := provider.Builtin(name)
		for _, rule := range p.Errors {
			used[string(rule.Cause)] = true
			if rule.Cause != "" && !explain.Known(rule.Cause) {
				t.Errorf("%s: %q has no entry", name, rule.Cause)
			}
		}
	}
	for _, e := range explain.All() {
		if e.Kind == explain.KindCause && !used[e.Name] {
			t.Errorf("%s comes of no profile", e.Name)
		}
	}
}

func TestEachReasonOfTheServerHasAnEntry(t *testing.T) {
	reason := regexp.MustCompile(`^[A-Z]+(_[A-Z]+)*$`)
	found := words(t, "../server", func(n ast.Node) []string {
		switch n := n.(type) {
		case *ast.CompositeLit: // a row of the table
			return literals(n.Elts...)
		case *ast.KeyValueExpr:
			if name, ok := n.Key.(*ast.Ident); ok && name.Name == "reason" {
				return literals(n.Value)
			}
		}
		return nil
	})
	if len(found) < 30 {
		t.Fatalf("found only %q", found)
	}
	for _, word := range found {
		if e, ok := explain.Lookup(word); reason.MatchString(word) && (!ok || e.Kind != explain.KindReason) {
			t.Errorf("%s has no entry", word)
		}
	}
}

func TestEachErrorCodeHasAnEntry(t *testing.T) {
	code := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	for _, dir := range []string{"../grant", "../broker", "../consent"} {
		found := words(t, dir, codesIn)
		if len(found) < 5 {
			t.Fatalf("found only %q in %s", found, dir)
		}
		for _, word := range found {
			if e, ok := explain.Lookup(word); code.MatchString(word) && (!ok || e.Kind != explain.KindCode) {
				t.Errorf("%s of %s has no entry", word, dir)
			}
		}
	}
}

// codesIn returns the error codes that a piece of code makes: what it refuses with, what it puts beside a class or into a Code.
func codesIn(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.CallExpr:
		if name, ok := n.Fun.(*ast.Ident); ok && (name.Name == "refuse" || name.Name == "needsPerson") {
			return literals(n.Args...)
		}
		if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "need" || slices.ContainsFunc(n.Args, class) {
			return literals(n.Args...)
		}
	case *ast.ReturnStmt:
		if slices.ContainsFunc(n.Results, class) {
			return literals(n.Results...)
		}
	case *ast.CompositeLit:
		if slices.ContainsFunc(n.Elts, class) {
			return literals(n.Elts...)
		}
	case *ast.KeyValueExpr:
		if name, ok := n.Key.(*ast.Ident); ok && name.Name == "Code" {
			return literals(n.Value)
		}
		if class(n.Value) {
			return literals(n.Key)
		}
	case *ast.AssignStmt:
		if slices.ContainsFunc(n.Lhs, takesCode) {
			return literals(n.Rhs...)
		}
	case *ast.ValueSpec:
		if strings.HasPrefix(n.Names[0].Name, "code") || n.Names[0].Name == "circuitOpen" {
			return literals(n.Values...)
		}
	case *ast.FuncDecl:
		if slices.Contains([]string{"codeOf", "unsentCode", "ended", "judgeIdentity", "judgeClaims"}, n.Name.Name) {
			var all []string
			ast.Inspect(n, func(n ast.Node) bool {
				if ret, ok := n.(*ast.ReturnStmt); ok {
					all = append(all, literals(ret.Results...)...)
				}
				return true
			})
			return all
		}
	}
	return nil
}

// class reports whether an expression is tokenbroker.ClassSomething.
func class(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	return ok && strings.HasPrefix(sel.Sel.Name, "Class") && len(sel.Sel.Name) > len("Class")
}

func takesCode(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	return ok && (sel.Sel.Name == "Code" || sel.Sel.Name == "fault")
}

func literals(exprs ...ast.Expr) (list []string) {
	for _, e := range exprs {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && s != "" {
				list = append(list, s)
			}
		}
	}
	return list
}

// words returns what a function finds in the source of a package, tests left out, each word once.
func words(t *testing.T, dir string, find func(ast.Node) []string) (list []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			list = append(list, find(n)...)
			return true
		})
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func TestWordsThatABrokerAndAnAgentSaySpeakOfBoth(t *testing.T) {
	for word, wants := range map[string][]string{
		"TRANSPORT":         {"no answer came", "gRPC refused", "agent's broker does not answer", "too large", "ask again later", "correct the request"},
		"AUDIT_UNAVAILABLE": {"broker's", "agent's", "on the host"},
	} {
		e, _ := explain.Lookup(word)
		for _, want := range wants {
			if all := e.Title + " " + e.Meaning + " " + e.Do; !strings.Contains(all, want) {
				t.Errorf("%s: got %q, want %q", word, all, want)
			}
		}
	}
}
