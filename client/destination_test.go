package client_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/client"
)

func TestNoTokenFollowsARedirect(t *testing.T) {
	w := newWorld(t, 0)
	sites := map[byte]*site{}
	for _, name := range []byte{'a', 'b', 'c', 'p'} { // p is plain http
		sites[name] = openSite(t, name == 'p', func(rw http.ResponseWriter, h hit) {
			if h.path == "/" {
				return
			}
			rw.Header().Set("Location", sites[h.path[1]].URL+"/"+h.path[2:])
			rw.WriteHeader(http.StatusTemporaryRedirect)
		})
	}
	for way, want := range map[string]string{ // the sites on the way, and whether each got the token
		"aa": "yy", "aaa": "yyy",
		"ab": "yn", "aba": "ynn", "abca": "ynnn", "abba": "ynnn", "aab": "yyn",
		"ap": "yn", "apa": "ynn", "pa": "yn", "pap": "ynn", "pp": "yy",
	} {
		for _, s := range sites {
			s.seen = nil
		}
		body := strings.NewReader("again and again")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, sites[way[0]].URL+"/"+way[1:], body)
		if err != nil {
			t.Fatal(err)
		}
		if status, _, err := send(w.to(sites['a'], "example/api"), req); err != nil || status != http.StatusOK {
			t.Fatalf("%s: got %d, %v, want 200", way, status, err)
		}
		got := ""
		at := map[byte]int{}
		for i := range way {
			h := sites[way[i]].seen[at[way[i]]]
			at[way[i]]++
			got += map[bool]string{true: "y", false: "n"}[h.bearer() != ""]
		}
		if got != want {
			t.Errorf("%s: got the token at %s, want %s", way, got, want)
		}
	}
}

func TestARefusedRedirectSendsNothing(t *testing.T) {
	w := newWorld(t, 0)
	for to, want := range map[string]string{"/?Access_Token=x": "access_token=", "/#access_token=x": "access_token="} {
		a := openSite(t, false, func(rw http.ResponseWriter, _ hit) {
			rw.Header().Set("Location", to)
			rw.WriteHeader(http.StatusFound)
		})
		_, _, err := send(w.to(a, "example/api"), get(t, a.URL))
		if err == nil || !strings.Contains(err.Error(), want) || len(a.hits()) != 1 {
			t.Errorf("%s: got %v after %d requests, want an error with %q after one", to, err, len(a.hits()), want)
		}
	}
}

func TestARequestIsRefusedBeforeAnythingIsSent(t *testing.T) {
	w := newWorld(t, 0)
	loopback := []client.TransportOption{client.LoopbackHTTP()}
	only := []client.TransportOption{client.AllowHosts("api.example", "Other.Example:8443")}
	for name, tc := range map[string]struct {
		url    string
		change func(*http.Request)
		opts   []client.TransportOption
		want   string // in the error; "" = it is sent
	}{
		"https":                       {url: "https://api.example/"},
		"plain":                       {url: "http://api.example/", want: "must be https"},
		"plain, with loopback":        {url: "http://api.example/", opts: loopback, want: "must be https"},
		"loopback":                    {url: "http://127.0.0.1/", want: "client.LoopbackHTTP()"},
		"loopback, allowed":           {url: "http://127.9.9.9:8080/", opts: loopback},
		"loopback, version 6":         {url: "http://[::1]:8080/", opts: loopback},
		"loopback, of a zone":         {url: "http://[::1%25eth0]/", opts: loopback, want: "must be https"},
		"loopback, written otherwise": {url: "http://127.1/", opts: loopback, want: "must be https"},
		"not loopback":                {url: "http://128.0.0.1/", opts: loopback, want: "must be https"},
		"localhost":                   {url: "http://localhost:80/", opts: loopback, want: "127.0.0.1"},
		"localhost as a name of all":  {url: "http://LOCALHOST./", opts: loopback, want: "127.0.0.1"},
		"localhost over https":        {url: "https://localhost/"},
		"another scheme":              {url: "ftp://api.example/", want: "must be https"},
		"no host":                     {url: "https:///path", want: "https://host/path"},
		"opaque":                      {url: "https://api.example/", change: func(r *http.Request) { r.URL.Opaque = "//other/" }, want: "https://host/path"},
		"a user":                      {url: "https://someone@api.example/", want: "user information"},
		"a password":                  {url: "https://someone:hush@api.example/", want: "user information"},
		"a token in the query":        {url: "https://api.example/?a=b&access_token=hush", want: "RFC 6750"},
		"in capitals":                 {url: "https://api.example/?ACCESS_TOKEN=hush", want: "RFC 6750"},
		"encoded":                     {url: "https://api.example/?access%5Ftoken=hush", want: "RFC 6750"},
		"after a semicolon":           {url: "https://api.example/?a=b;access_token=hush", want: "RFC 6750"},
		"empty":                       {url: "https://api.example/?access_token", want: "RFC 6750"},
		"in the fragment":             {url: "https://api.example/#x&access_token=hush", want: "RFC 6750"},
		"badly encoded beside":        {url: "https://api.example/?%zz=1&access_token=hush", want: "RFC 6750"},
		"another's token":             {url: "https://api.example/?my_access_token=x&page_token=y&q=access_token"},
		"a header that is there":      {url: "https://api.example/", change: func(r *http.Request) { r.Header.Set("Authorization", "Basic x") }, want: "Authorization already"},
		"the same, not canonical":     {url: "https://api.example/", change: func(r *http.Request) { r.Header["authorization"] = []string{"x"} }, want: "Authorization already"},
		"another's key":               {url: "https://api.example/", change: func(r *http.Request) { r.Header.Set("X-Api-Key", "x") }},
		"a host of the list":          {url: "https://API.example:443/", opts: only},
		"another port":                {url: "https://api.example:444/", opts: only, want: "leads to api.example:444, which AllowHosts does not name"},
		"a port of the list":          {url: "https://other.example:8443/", opts: only},
		"a host below":                {url: "https://www.api.example/", opts: only, want: "AllowHosts does not name"},
		"a host besides":              {url: "https://api.example.evil.example/", opts: only, want: "AllowHosts does not name"},
		"another Host":                {url: "https://api.example/", change: func(r *http.Request) { r.Host = "evil.example" }, want: "Host header"},
		"the same Host":               {url: "https://api.example/", change: func(r *http.Request) { r.Host = "API.example:443" }},
		"another Host of the list":    {url: "https://api.example/", opts: only, change: func(r *http.Request) { r.Host = "other.example:8443" }},
		"another Host of no list":     {url: "https://api.example/", opts: only, change: func(r *http.Request) { r.Host = "evil.example" }, want: "AllowHosts does not name"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &api{answer: func(*http.Request) int { return http.StatusOK }}
			req := get(t, tc.url)
			body := &closing{Reader: strings.NewReader("x")}
			req.Body = body
			if tc.change != nil {
				tc.change(req)
			}
			resp, err := w.c.Transport("example/api", append(tc.opts, client.Base(a))...).RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			switch {
			case !body.closed:
				t.Errorf("the body is left open")
			case tc.want == "" && (err != nil || len(a.seen) != 1 || a.seen[0] == ""):
				t.Errorf("got %v after %d requests, want one with a token", err, len(a.seen))
			case tc.want != "" && (!errors.Is(err, tokenbroker.ErrInvalidArgument) || !strings.Contains(err.Error(), tc.want) || len(a.seen) != 0):
				t.Errorf("got %v after %d requests, want none, and an error with %q", err, len(a.seen), tc.want)
			case tc.want != "" && strings.Contains(err.Error(), "hush"):
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

func TestAnAPIKeyGoesIntoItsOwnHeader(t *testing.T) {
	w := newWorld(t, 0)
	a := openSite(t, false, func(http.ResponseWriter, hit) {})
	req := get(t, a.URL)
	req.Header.Set("Authorization", "Basic of-something-else")
	if _, _, err := send(w.to(a, "example/key"), req); err != nil {
		t.Fatal(err)
	}
	if h := a.hits()[0].header; h.Get("X-Api-Key") != "key-1" || h.Get("Authorization") != "Basic of-something-else" {
		t.Errorf("got %q and %q, want the key and what the caller gave", h.Get("X-Api-Key"), h.Get("Authorization"))
	}
	req.Header.Set("X-Api-Key", "mine")
	if _, _, err := send(w.to(a, "example/key"), req); !errors.Is(err, tokenbroker.ErrInvalidArgument) {
		t.Errorf("the header is there: got %v, want ErrInvalidArgument", err)
	}
}

func TestTheCallersRequestNeverHoldsTheToken(t *testing.T) {
	w := newWorld(t, 0)
	a := openSite(t, false, func(http.ResponseWriter, hit) {})
	req := get(t, a.URL)
	resp, err := w.to(a, "example/api").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if len(req.Header) != 0 || resp.Request.Header.Get("Authorization") != "" || a.hits()[0].bearer() == "" {
		t.Errorf("got headers %v, and %v with the reply, want a token at the API alone", req.Header, resp.Request.Header)
	}
}

// closing is a body that knows whether it was closed.
type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }
