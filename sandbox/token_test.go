package sandbox_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

const ccPost = "grant_type=client_credentials&client_id=post&client_secret=s3cret"

func TestClientCredentials(t *testing.T) {
	inBothForms(t, sandbox.Issuer{ScopesSupported: []string{"read", "write"}}, func(t *testing.T, w *world) {
		r := w.do(w.request("POST", "/acme/token", ccPost+"&scope=read")).want(t, 200, "")
		if r.str("scope") != "read" || r.str("token_type") != "Bearer" || r.json["expires_in"] != 3600.0 {
			t.Errorf("got %s, want scope read, type Bearer, 3600 s", r.text)
		}
		if r.json["refresh_token"] != nil {
			t.Error("got a refresh token, want none")
		}
		if !strings.HasPrefix(r.str("access_token"), sandbox.AccessPrefix) {
			t.Errorf("got an access token without %q", sandbox.AccessPrefix)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "Pragma": "no-cache", "Content-Type": "application/json"} {
			if got := r.header.Get(name); got != want {
				t.Errorf("got %s %q, want %q", name, got, want)
			}
		}
		w.wantValid(r.str("access_token"), true)
		if got := w.do(w.request("POST", "/acme/token", ccPost)).str("scope"); got != "read write" {
			t.Errorf("got default scope %q, want all", got)
		}
		w.do(w.request("POST", "/acme/token", ccPost+"&scope=admin")).want(t, 400, "invalid_scope")
	})
}

func TestClientScopesBoundClientCredentials(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{Clients: []sandbox.Client{
		{ID: "some", Secrets: []string{"x"}, Auth: sandbox.AuthPost, Scopes: []string{"read"}},
		{ID: "nothing", Secrets: []string{"x"}, Auth: sandbox.AuthPost, Scopes: []string{}},
		{ID: "refresher", Secrets: []string{"x"}, Auth: sandbox.AuthPost, Grants: []string{sandbox.GrantRefreshToken}},
	}})
	ask := func(id, more string) reply {
		return w.do(w.request("POST", "/acme/token", "grant_type=client_credentials&client_secret=x&client_id="+id+more))
	}
	if got := ask("some", "").want(t, 200, "").str("scope"); got != "read" {
		t.Errorf("got default scope %q, want read", got)
	}
	ask("some", "&scope=write").want(t, 400, "invalid_scope")
	ask("nothing", "&scope=read").want(t, 400, "invalid_scope")
	ask("refresher", "").want(t, 400, "unauthorized_client")
}

func TestTokenRequestMustBeProper(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*http.Request)
		body   string
		status int
		code   string
	}{
		"GET":                           {change: func(r *http.Request) { r.Method = "GET" }, body: ccPost, status: 405, code: "invalid_request"},
		"JSON body":                     {change: contentType("application/json"), body: ccPost, status: 400, code: "invalid_request"},
		"no content type":               {change: contentType(""), body: ccPost, status: 400, code: "invalid_request"},
		"charset latin-1":               {change: contentType("application/x-www-form-urlencoded; charset=latin1"), body: ccPost, status: 400, code: "invalid_request"},
		"charset UTF-8":                 {change: contentType("application/x-www-form-urlencoded;charset=UTF-8"), body: ccPost, status: 200},
		"parameters in the query":       {change: func(r *http.Request) { r.URL.RawQuery = ccPost }, status: 400, code: "invalid_request"},
		"bad escape":                    {body: ccPost + "&x=%zz", status: 400, code: "invalid_request"},
		"repeated parameter":            {body: ccPost + "&scope=a&scope=b", status: 400, code: "invalid_request"},
		"body too large":                {body: ccPost + "&x=" + strings.Repeat("x", 64<<10), status: 400, code: "invalid_request"},
		"unknown parameter is ignored":  {body: ccPost + "&x=1", status: 200},
		"no grant type":                 {body: "client_id=post&client_secret=s3cret", status: 400, code: "invalid_request"},
		"empty grant type":              {body: "grant_type=&client_id=post&client_secret=s3cret", status: 400, code: "invalid_request"},
		"unknown grant type":            {body: "grant_type=magic&client_id=post&client_secret=s3cret", status: 400, code: "unsupported_grant_type"},
		"public client, its own name":   {body: "grant_type=client_credentials&client_id=public", status: 400, code: "unauthorized_client"},
		"scope with a quote":            {body: ccPost + "&scope=%22", status: 400, code: "invalid_scope"},
		"scope with a trailing blank":   {body: ccPost + "&scope=read+", status: 400, code: "invalid_scope"},
		"authentication before grants":  {body: "grant_type=magic&client_id=post&client_secret=no", status: 400, code: "invalid_client"},
		"two Authorization headers":     {change: twoHeaders, body: "grant_type=client_credentials", status: 400, code: "invalid_request"},
		"repeated scope counts as once": {body: ccPost + "&scope=a+a", status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Issuer{})
			r := w.request("POST", "/acme/token", row.body)
			if row.change != nil {
				row.change(r)
			}
			got := w.do(r).want(t, row.status, row.code)
			if got.header.Get("Cache-Control") != "no-store" {
				t.Error("got an answer that may be stored")
			}
			if row.status == 405 && got.header.Get("Allow") != "POST" {
				t.Errorf("got Allow %q, want POST", got.header.Get("Allow"))
			}
		})
	}
}

func contentType(s string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Content-Type", s) }
}

func twoHeaders(r *http.Request) {
	r.Header.Add("Authorization", basic("basic", "s3cret"))
	r.Header.Add("Authorization", basic("basic", "s3cret"))
}

// basic is the header of RFC 6749 §2.3.1.
func basic(id, secret string) string {
	return rawBasic(url.QueryEscape(id) + ":" + url.QueryEscape(secret))
}

func rawBasic(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }

func TestClientAuthenticationIsExact(t *testing.T) {
	const cc = "grant_type=client_credentials"
	for name, row := range map[string]struct {
		header string
		body   string
		status int
		code   string
	}{
		"basic":                              {header: basic("basic", "s3cret"), status: 200},
		"basic, lower-case scheme":           {header: "basic" + strings.TrimPrefix(basic("basic", "s3cret"), "Basic"), status: 200},
		"basic, second secret, encoded":      {header: basic("basic", "a+b/c %:é"), status: 200},
		"basic, second secret, raw":          {header: rawBasic("basic:a+b/c %:é"), status: 401, code: "invalid_client"},
		"basic, raw slash":                   {header: rawBasic("basic:a%2Bb/c%20%25%3A%C3%A9"), status: 401, code: "invalid_client"},
		"basic, blank as %20":                {header: rawBasic("basic:a%2Bb%2fc%20%25%3A%C3%A9"), status: 200},
		"basic, id that needs encoding":      {header: basic("a:b c", "s3cret"), status: 200},
		"basic, wrong secret":                {header: basic("basic", "no"), status: 401, code: "invalid_client"},
		"basic, no secret":                   {header: basic("basic", ""), status: 401, code: "invalid_client"},
		"basic, no colon":                    {header: rawBasic("basic"), status: 401, code: "invalid_client"},
		"basic, not base64":                  {header: "Basic ???", status: 401, code: "invalid_client"},
		"basic, unknown client":              {header: basic("nobody", "s3cret"), status: 401, code: "invalid_client"},
		"basic, same client_id in the body":  {header: basic("basic", "s3cret"), body: "&client_id=basic", status: 200},
		"basic, other client_id in the body": {header: basic("basic", "s3cret"), body: "&client_id=post", status: 400, code: "invalid_request"},
		"basic and post at once":             {header: basic("basic", "s3cret"), body: "&client_id=basic&client_secret=s3cret", status: 400, code: "invalid_request"},
		"bearer":                             {header: "Bearer sandbox_at_x", status: 401, code: "invalid_client"},
		"post":                               {body: "&client_id=post&client_secret=s3cret", status: 200},
		"post, wrong secret":                 {body: "&client_id=post&client_secret=no", status: 400, code: "invalid_client"},
		"post by a client of basic":          {body: "&client_id=basic&client_secret=s3cret", status: 400, code: "invalid_client"},
		"basic by a client of post":          {header: basic("post", "s3cret"), status: 401, code: "invalid_client"},
		"none by a client of post":           {body: "&client_id=post", status: 400, code: "invalid_client"},
		"none by a client of basic":          {body: "&client_id=basic", status: 400, code: "invalid_client"},
		"public client with a secret":        {body: "&client_id=public&client_secret=x", status: 400, code: "invalid_client"},
		"public client by basic":             {header: basic("public", ""), status: 401, code: "invalid_client"},
		"nobody":                             {status: 400, code: "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Issuer{})
			r := w.request("POST", "/acme/token", cc+row.body)
			if row.header != "" {
				r.Header.Set("Authorization", row.header)
			}
			got := w.do(r).want(t, row.status, row.code)
			challenge := strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ")
			if challenge != (row.status == 401) {
				t.Errorf("got status %d with challenge %t", got.status, challenge)
			}
		})
	}
}

func TestRotateSecret(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	ask := func(secret string) reply {
		return w.do(w.request("POST", "/acme/token", "grant_type=client_credentials&client_id=post&client_secret="+secret))
	}
	w.srv.RotateSecret("acme", "post", "s3cret", "newer")
	ask("s3cret").want(t, 200, "")
	ask("newer").want(t, 200, "")
	w.srv.RotateSecret("acme", "post", "newer")
	ask("s3cret").want(t, 400, "invalid_client")
	ask("newer").want(t, 200, "")
}

func TestResourceAnswersAsRFC6750(t *testing.T) {
	for name, row := range map[string]struct {
		headers []string
		status  int
		code    string
	}{
		"nothing":       {status: 401},
		"unknown token": {headers: []string{"Bearer sandbox_at_x"}, status: 401, code: "invalid_token"},
		"other scheme":  {headers: []string{basic("post", "s3cret")}, status: 400, code: "invalid_request"},
		"no token":      {headers: []string{"Bearer"}, status: 400, code: "invalid_request"},
		"two tokens":    {headers: []string{"Bearer a", "Bearer b"}, status: 400, code: "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Issuer{})
			r := w.request("GET", "/acme/resource", "")
			r.Header["Authorization"] = row.headers
			got := w.do(r)
			challenge := got.header.Get("WWW-Authenticate")
			if got.status != row.status || strings.Contains(challenge, "error=") != (row.code != "") || !strings.Contains(challenge, row.code) {
				t.Errorf("got %d %q, want %d %q", got.status, challenge, row.status, row.code)
			}
			if n := w.srv.Count(sandbox.Filter{Endpoint: sandbox.EndpointResource, Code: row.code}); n != 1 {
				t.Errorf("got %d in the journal, want 1", n)
			}
		})
	}
}

func TestTokensOfOneIssuerAreNothingToAnother(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	r := w.request("GET", "/other/resource", "")
	r.Header.Set("Authorization", "Bearer "+w.refresh(w.seed()).str("access_token"))
	if got := w.do(r).status; got != 401 {
		t.Errorf("got %d, want 401", got)
	}
}

func TestUnknownPathsAreNotFound(t *testing.T) {
	for _, path := range []string{"/", "/acme", "/acme/", "/acme/token/", "/nobody/token", "/acme/nowhere", "/.well-known/oauth-authorization-server", "/.well-known/x/acme"} {
		w := newWorld(t, sandbox.Issuer{})
		if got := w.do(w.request("POST", path, ccPost)).status; got != 404 {
			t.Errorf("%s: got %d, want 404", path, got)
		}
	}
}

func TestPlainHTTPIsRefusedUnlessAllowed(t *testing.T) {
	for name, allow := range map[string]bool{"refused": false, "allowed": true} {
		t.Run(name, func(t *testing.T) {
			srv, err := sandbox.New(sandbox.Config{AllowHTTP: allow, Issuers: []sandbox.Issuer{
				{Name: "acme", Clients: []sandbox.Client{{ID: "post", Secrets: []string{"s3cret"}, Auth: sandbox.AuthPost}}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			ts := httptest.NewServer(srv)
			defer ts.Close()
			want := map[bool]int{false: 400, true: 200}[allow]
			w := &world{t: t, srv: srv, client: ts.Client(), base: ts.URL}
			if got := w.do(w.request("POST", "/acme/token", ccPost)).status; got != want {
				t.Errorf("handler: got %d, want %d", got, want)
			}
			w = &world{t: t, srv: srv, client: &http.Client{Transport: srv}, base: "http://sandbox.test"}
			if got := w.do(w.request("POST", "/acme/token", ccPost)).status; got != want {
				t.Errorf("round tripper: got %d, want %d", got, want)
			}
		})
	}
}

// FuzzTokenRequest sends anything and wants an answer of the protocol, and a token only for the right secret.
func FuzzTokenRequest(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", "", ccPost)
	f.Add("application/x-www-form-urlencoded", basic("basic", "a+b/c %:é"), "grant_type=client_credentials")
	f.Add("text/plain; charset=\"", "Basic =", "grant_type=%")
	f.Add("", "Basic", "&&==&")
	f.Fuzz(func(t *testing.T, kind, auth, body string) {
		w := newWorld(t, sandbox.Issuer{})
		r := w.request("POST", "/acme/token", body)
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Authorization", auth)
		res, err := w.srv.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusBadRequest && res.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %d, want 200, 400 or 401", res.StatusCode)
		}
		if len(w.srv.Journal()) != 1 {
			t.Error("want one journal entry")
		}
	})
}
