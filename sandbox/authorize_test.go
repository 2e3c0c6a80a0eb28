package sandbox_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestAnAccountConsentsAndTheCodeBringsTokens(t *testing.T) {
	inBothForms(t, people(), func(t *testing.T, w *world) {
		got := w.authorize("scope", "openid read")
		if got.Get("state") != "st" || got.Get("iss") != w.base+"/acme" || !strings.HasPrefix(got.Get("code"), sandbox.CodePrefix) {
			t.Fatalf("got %v", got)
		}
		r := w.exchange(got.Get("code")).want(t, 200, "")
		if r.str("scope") != "openid read" || !strings.HasPrefix(r.str("refresh_token"), sandbox.RefreshPrefix) {
			t.Errorf("got %s", r.text)
		}
		id := w.opened(r.str("id_token"))
		if id["sub"] != "7" || id["email"] != "ann@corp.test" || id["nonce"] != "n0" || id["aud"] != "web" || id["iss"] != w.base+"/acme" {
			t.Errorf("got claims %v", id)
		}
		me := w.get("/acme/userinfo", r.str("access_token")).want(t, 200, "")
		if me.str("sub") != "7" || me.str("email") != "ann@corp.test" || me.str("name") != "Ann" {
			t.Errorf("got %s", me.text)
		}
		again := w.postAs("web", "token", "grant_type", "refresh_token", "refresh_token", r.str("refresh_token")).want(t, 200, "")
		if id := w.opened(again.str("id_token")); id["sub"] != "7" || id["nonce"] != nil {
			t.Errorf("got claims %v after a refresh, want no nonce", id)
		}
	})
}

func TestACodeIsGoodForOneAttempt(t *testing.T) {
	for name, row := range map[string]struct {
		first  []string // of the first attempt
		status int
		code   string
		second string // error of an attempt that is as it should be
	}{
		"used twice":              {status: 200, second: "invalid_grant"},
		"wrong verifier":          {first: []string{"code_verifier", strings.Repeat("x", 43)}, status: 400, code: "invalid_grant", second: "invalid_grant"},
		"short verifier":          {first: []string{"code_verifier", "x"}, status: 400, code: "invalid_request", second: "invalid_grant"},
		"no verifier":             {first: []string{"code_verifier", ""}, status: 400, code: "invalid_request", second: "invalid_grant"},
		"other redirect URI":      {first: []string{"redirect_uri", "https://app.test/other"}, status: 400, code: "invalid_grant", second: "invalid_grant"},
		"another client's":        {first: []string{"client_id", "legacy"}, status: 400, code: "invalid_grant"},
		"an unknown client's":     {first: []string{"client_id", "x"}, status: 400, code: "invalid_client"},
		"without a code":          {first: []string{"code", ""}, status: 400, code: "invalid_request"},
		"with the wrong secret":   {first: []string{"client_secret", "x"}, status: 400, code: "invalid_client"},
		"with no redirect at all": {first: []string{"redirect_uri", ""}, status: 400, code: "invalid_grant", second: "invalid_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, people())
			code := w.authorize().Get("code")
			f := url.Values{"client_id": {"web"}, "client_secret": {"s3cret"}, "grant_type": {"authorization_code"}, "code": {code},
				"redirect_uri": {callback}, "code_verifier": {verifier}}
			for i := 0; i < len(row.first); i += 2 {
				f.Set(row.first[i], row.first[i+1])
			}
			first := w.do(w.request("POST", "/acme/token", f.Encode())).want(t, row.status, row.code)
			w.exchange(code).want(t, map[string]int{"": 200, "invalid_grant": 400}[row.second], row.second)
			if row.status == 200 {
				w.wantValid(first.str("access_token"), false) // a replay ends what came of the code
				w.postAs("web", "token", "grant_type", "refresh_token", "refresh_token", first.str("refresh_token")).want(t, 400, "invalid_grant")
			}
		})
	}
}

func TestACodeExpires(t *testing.T) {
	w := newWorld(t, people())
	code := w.authorize().Get("code")
	w.srv.Advance(time.Minute)
	w.exchange(code).want(t, 400, "invalid_grant")
}

func TestAuthorizationErrorsGoBackToTheClient(t *testing.T) {
	for want, params := range map[string][]string{
		"unsupported_response_type": {"response_type", "token"},
		"invalid_request":           {"response_type", ""},
		"invalid_request ":          {"code_challenge", "", "code_challenge_method", ""},
		"invalid_request  ":         {"code_challenge_method", "plain"},
		"invalid_request   ":        {"code_challenge", "short"},
		"invalid_request    ":       {"response_mode", "form_post"},
		"invalid_scope":             {"scope", "nope"},
		"invalid_target":            {"resource", "https://else.test"},
		"interaction_required":      {"prompt", "none"},
		"request_not_supported":     {"request", "x"},
		"request_uri_not_supported": {"request_uri", "https://x.test"},
	} {
		w := newWorld(t, people())
		status, to := w.follow(w.asking(params...))
		u, err := url.Parse(to)
		if err != nil || status != http.StatusSeeOther || !strings.HasPrefix(to, callback+"?") {
			t.Fatalf("%v: got %d to %q", params, status, to)
		}
		if got := u.Query(); got.Get("error") != strings.TrimSpace(want) || got.Get("state") != "st" || got.Get("iss") == "" || got.Get("code") != "" {
			t.Errorf("%v: got %v, want %s", params, got, want)
		}
		w.wantLast(sandbox.Entry{Status: 303, Code: strings.TrimSpace(want), Processed: true})
	}
}

func TestAnUnknownRedirectURIIsNeverFollowed(t *testing.T) {
	for _, params := range [][]string{
		{"redirect_uri", "https://app.test/callback/"}, {"redirect_uri", "https://app.test/callback?x=1"}, {"redirect_uri", "http://app.test/callback"},
		{"redirect_uri", "https://else.test/"}, {"redirect_uri", callback + "#x"}, {"client_id", "nobody"}, {"client_id", ""},
		{"client_id", "native"}, {"client_id", "native", "redirect_uri", "http://localhost:1/cb"},
		{"client_id", "native", "redirect_uri", "http://127.0.0.1:1/cb/"}, {"client_id", "native", "redirect_uri", "https://127.0.0.1:1/cb"},
		{"client_id", "native", "redirect_uri", "http://127.0.0.1@else.test/cb"}, {"client_id", "native", "redirect_uri", "http://x@127.0.0.1/cb"},
		{"client_id", "native", "redirect_uri", ""}, // two are registered
	} {
		w := newWorld(t, people())
		if status, to := w.follow(w.asking(params...)); status != 400 || to != "" {
			t.Errorf("%v: got %d to %q, want a page", params, status, to)
		}
		if _, err := w.srv.Authorize("acme", w.asking(params...), "ann@corp.test"); err == nil {
			t.Errorf("%v: got no error from Authorize", params)
		}
	}
}

func TestALoopbackRedirectMayHaveAnyPort(t *testing.T) {
	w := newWorld(t, people())
	for _, uri := range []string{"http://127.0.0.1:49152/cb", "http://127.0.0.1/cb", "http://[::1]:3/cb"} {
		code := w.authorize("client_id", "native", "redirect_uri", uri).Get("code")
		w.postAs("native", "token", "grant_type", "authorization_code", "code", code, "code_verifier", verifier, "redirect_uri", uri).want(t, 200, "")
	}
}

func TestOnlyALoopbackRedirectMayHaveAnyPort(t *testing.T) {
	iss := people()
	iss.Clients = append(iss.Clients, sandbox.Client{ID: "lan", Auth: sandbox.AuthNone,
		RedirectURIs: []string{"http://10.0.0.1/cb", "https://127.0.0.2/cb", "http://localhost/cb", "http://127.0.0.1/cb?tenant=1", "app:/cb"}})
	w := newWorld(t, iss)
	for uri, want := range map[string]int{
		"http://10.0.0.1/cb": 200, "http://10.0.0.1:80/cb": 400, "https://127.0.0.2/cb": 200, "https://127.0.0.2:8443/cb": 400,
		"http://localhost/cb": 200, "http://localhost:1/cb": 400, "http://127.0.0.1:7/cb?tenant=1": 200, "http://127.0.0.1:7/cb?tenant=2": 400,
		"http://127.0.0.1:7/cb": 400, "http://127.0.0.3/cb?tenant=1": 400, "app:/cb": 200, "app:/CB": 400, "http://127.0.0.1:%zz/cb": 400,
	} {
		if status, _ := w.follow(w.asking("client_id", "lan", "redirect_uri", uri)); status != want {
			t.Errorf("%s: got %d, want %d", uri, status, want)
		}
	}
}

func TestTheCallbackKeepsTheQueryOfTheRedirectURI(t *testing.T) {
	iss := people()
	iss.Clients = append(iss.Clients, sandbox.Client{ID: "tenant", Auth: sandbox.AuthNone, RedirectURIs: []string{"https://app.test/cb?tenant=1"}})
	w := newWorld(t, iss)
	got := w.authorize("client_id", "tenant", "redirect_uri", "https://app.test/cb?tenant=1")
	if got.Get("tenant") != "1" || got.Get("code") == "" || got.Get("state") != "st" {
		t.Errorf("got %v", got)
	}
}

func TestTheOnlyRedirectURIMayBeLeftOut(t *testing.T) {
	w := newWorld(t, people())
	code := w.authorize("redirect_uri", "").Get("code")
	w.post("token", "grant_type", "authorization_code", "code", code, "code_verifier", verifier).want(t, 200, "")
}

func TestPKCEIsOptionalOnlyWhereTheClientSaysSo(t *testing.T) {
	w := newWorld(t, people())
	code := w.authorize("client_id", "legacy", "code_challenge", "", "code_challenge_method", "").Get("code")
	r := w.postAs("legacy", "token", "grant_type", "authorization_code", "code", code, "redirect_uri", callback).want(t, 200, "")
	if r.str("refresh_token") != "" {
		t.Error("got a refresh token for a client that may not use it")
	}
	code = w.authorize("client_id", "legacy", "code_challenge", "", "code_challenge_method", "").Get("code")
	w.postAs("legacy", "token", "grant_type", "authorization_code", "code", code, "redirect_uri", callback, "code_verifier", verifier).want(t, 400, "invalid_grant")
}

func TestTheConsentPage(t *testing.T) {
	inBothForms(t, people(), func(t *testing.T, w *world) {
		r := w.request("GET", strings.TrimPrefix(w.asking(), w.base), "")
		page := w.do(r)
		for _, want := range []string{"Allow web?", `value="ann@corp.test"`, `value="read" checked`, `name="password"`, `action="` + w.base + `/acme/authorize"`} {
			if !strings.Contains(page.text, want) {
				t.Errorf("got a page without %q: %s", want, page.text)
			}
		}
		if page.status != 200 || !strings.Contains(page.header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || page.header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("got %d %v", page.status, page.header)
		}
		_, rest, _ := strings.Cut(page.text, `name="request" value="`)
		id, _, _ := strings.Cut(rest, `"`)
		answer := func(pairs ...string) reply {
			f := url.Values{"request": {id}}
			for i := 0; i < len(pairs); i += 2 {
				f.Add(pairs[i], pairs[i+1])
			}
			return w.do(w.request("POST", "/acme/authorize", f.Encode()))
		}
		for problem, pairs := range map[string][]string{
			"Choose":       {"account", "bob@corp.test", "granted", "read"},
			"no such":      {"decision", "allow", "account", "x", "granted", "read"},
			"do not match": {"decision", "allow", "account", "ann@corp.test", "password", "no", "granted", "read"},
			"at least one": {"decision", "allow", "account", "bob@corp.test", "granted", "admin"},
		} {
			if got := answer(pairs...); got.status != 400 || !strings.Contains(got.text, problem) {
				t.Errorf("got %d %s, want %q", got.status, got.text, problem)
			}
		}
		got := answer("decision", "allow", "account", "bob@corp.test", "granted", "read", "granted", "admin")
		code := w.callback(got.header.Get("Location"), nil).Get("code")
		if r := w.exchange(code).want(t, 200, ""); r.str("scope") != "read" {
			t.Errorf("got scope %q, want read alone", r.str("scope"))
		}
		if got := answer("decision", "allow", "account", "bob@corp.test", "granted", "read"); got.status != 400 || got.header.Get("Location") != "" {
			t.Errorf("got %d for a page that was answered, want 400", got.status)
		}
	})
}

func TestAPageThatNobodyAnsweredExpires(t *testing.T) {
	w := newWorld(t, people())
	page := w.do(w.request("GET", strings.TrimPrefix(w.asking(), w.base), ""))
	_, rest, _ := strings.Cut(page.text, `name="request" value="`)
	id, _, _ := strings.Cut(rest, `"`)
	w.srv.Advance(10 * time.Minute)
	if got := w.do(w.request("POST", "/acme/authorize", "decision=deny&request="+id)); got.status != 400 {
		t.Errorf("got %d, want 400", got.status)
	}
}

func TestConsentCanBeRefused(t *testing.T) {
	w := newWorld(t, people())
	if got := w.callback(w.srv.RefuseAuthorization("acme", w.asking())); got.Get("error") != "access_denied" || got.Get("state") != "st" || got.Get("iss") == "" {
		t.Errorf("got %v", got)
	}
	if got := w.callback(w.srv.Authorize("acme", w.asking("scope", "admin"), "bob@corp.test")); got.Get("error") != "admin_policy_enforced" {
		t.Errorf("got %v", got)
	}
	if got := w.callback(w.srv.Authorize("acme", w.asking(), "eve@else.test")); got.Get("error") != "org_internal" {
		t.Errorf("got %v", got)
	}
}

func TestSomeScopesOnlyAreGranted(t *testing.T) {
	w := newWorld(t, people())
	code := w.callback(w.srv.Authorize("acme", w.asking("scope", "read write"), "bob@corp.test", "write")).Get("code")
	if got := w.exchange(code).str("scope"); got != "write" {
		t.Errorf("got %q, want write", got)
	}
}

func TestAutoApproveNeedsNoPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := people()
		iss.AutoApprove = "bob@corp.test"
		w := newWorld(t, iss)
		status, to := w.follow(w.asking())
		token := w.exchange(w.callback(to, nil).Get("code")).str("access_token")
		if got := w.get("/acme/resource", token); status != 303 || got.str("sub") != "8" {
			t.Errorf("got %d, %s", status, got.text)
		}
		w.srv.AutoApprove("acme", "")
		if status, _ := w.follow(w.asking()); status != 200 {
			t.Errorf("got %d, want the page again", status)
		}
		wantPanic(t, func() { w.srv.AutoApprove("acme", "nobody") })
	})
}

func TestAuthorizeRefusesWhatItCanNotFollow(t *testing.T) {
	w := newWorld(t, people())
	for _, address := range []string{w.base + "/other/authorize", w.base + "/acme/token", "http://sandbox.test/acme/authorize?client_id=web", ":"} {
		if to, err := w.srv.Authorize("acme", address, "ann@corp.test"); err == nil {
			t.Errorf("%s: got %q, want an error", address, to)
		}
	}
	if _, err := w.srv.Authorize("acme", w.asking(), "nobody"); err == nil || !strings.Contains(err.Error(), "no such account") {
		t.Errorf("got %v", err)
	}
	if got := w.do(w.request("PUT", "/acme/authorize", "")); got.status != 405 {
		t.Errorf("got %d, want 405", got.status)
	}
}
