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
		resource := &url.URL{Path: "/" + c.issuer + "/resource", RawQuery: url.Values{"scope": {c.scope}}.Encode()}
		answer := func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			r.URL = resource
			sandbox.ServeHTTP(w, r)
		}
		at := apiPath + "/" + path.Base(c.name)
		mux.HandleFunc("GET "+at, answer)
		mux.HandleFunc("GET "+at+"/", answer)
	}
	return mux
}

// api is the address of the API.
func (f *front) api() string { return "http://" + f.listener.Addr().String() + apiPath }

// env is what a shell reads besides how to speak to the broker. The API is on loopback, and speaks plain http.
func (f *front) env() string {
	return "export API=" + starter.Quote(f.api()) + "\nexport TOKENBROKER_LOOPBACK_HTTP=true\n"
}
