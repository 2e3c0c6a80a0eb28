package dev

import (
	"net/http"
	"net/url"
	"path"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/starter"
)

const apiPath = "/api"

// api is where a newcomer calls an API with a token: /api/reports takes those of example/reports, and so on, with 401 and 403 as RFC 6750 has
// them. What is below a path is answered likewise. All else is the sandbox's own.
func api(sandbox http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", sandbox)
	for _, c := range append(samples(), credential{name: mine, issuer: people, scope: "files.read"}) {
		answer := resource(sandbox, c.issuer, url.Values{"scope": {c.scope}})
		at := apiPath + "/" + path.Base(c.name)
		mux.HandleFunc("GET "+at, answer)
		mux.HandleFunc("GET "+at+"/", answer)
	}
	return mux
}

// resource answers as the protected resource of an issuer.
func resource(sandbox http.Handler, issuer string, query url.Values) http.HandlerFunc {
	at := &url.URL{Path: "/" + issuer + "/resource", RawQuery: query.Encode()}
	return func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.URL = at
		sandbox.ServeHTTP(w, r)
	}
}

// ownAPI is the API of an operator's own providers: /api/PROVIDER takes the live tokens of that provider, whatever their scopes. A name may
// hold what a pattern of http.ServeMux can't, so it is looked up.
func ownAPI(sandbox http.Handler, roles map[string]role) http.Handler {
	answers := map[string]http.HandlerFunc{}
	for name, r := range roles {
		answers[name] = resource(sandbox, r.issuer, nil)
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		if of, known := answers[r.PathValue("provider")]; known {
			of(w, r)
			return
		}
		http.NotFound(w, r)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+apiPath+"/{provider}", answer)
	mux.HandleFunc("GET "+apiPath+"/{provider}/{rest...}", answer)
	return mux
}

// api is the address of the API.
func (f *front) api() string { return "http://" + f.listener.Addr().String() + apiPath }

// env is what a shell reads besides how to speak to the broker. The API is on loopback, and speaks plain http.
func (f *front) env() string {
	return "export API=" + starter.Quote(f.api()) + "\nexport TOKENBROKER_LOOPBACK_HTTP=true\n"
}
