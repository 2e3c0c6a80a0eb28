package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Metadata says how the metadata server of Google's machines is emulated, at which their SDKs find a token without a line of code:
// GCE_METADATA_HOST names it to them. The zero value is not at all.
//
// It is for jobs whose uid has a rule for the one credential that it gives. As at Google, every request has to hold "Metadata-Flavor:
// Google", which no page and no proxy sends by accident, and one that came by a proxy is refused. There are no identity tokens.
type Metadata struct {
	Listen       string // 127.0.0.1:PORT
	Credential   string // whose tokens it gives; required with Listen
	Email        string // of the service account, as SDKs are told; "" = "default"
	Project      string // project id; "" = there is none
	Number       string // numeric project id; "" = there is none
	IgnoreScopes bool   // SDKs ask for the scopes that suit them: give the credential's own all the same, as a machine with fixed scopes does
}

const (
	flavorHeader = "Metadata-Flavor"
	flavor       = "Google"
	accountsPath = "/computeMetadata/v1/instance/service-accounts/"
)

// openMetadata opens the emulated metadata server, if there is to be one.
func (a *Agent) openMetadata(ctx context.Context) error {
	m := &metadata{Metadata: a.cfg.Metadata, a: a}
	if m.Listen == "" {
		return nil
	}
	if err := tokenbroker.ValidateName(m.Credential); err != nil {
		return tokenbroker.Invalid("Metadata.Credential", fmt.Errorf("the credential whose tokens the metadata server gives: %w", err))
	}
	if m.Email = cmp.Or(m.Email, "default"); strings.ContainsAny(m.Email, "/ ?#") {
		return tokenbroker.Invalid("Metadata.Email", errors.New("is no address"))
	}
	l, err := listenLoopback(ctx, "Metadata.Listen", m.Listen)
	if err != nil {
		return err
	}
	a.fronts = append(a.fronts, a.newFront("metadata", l, a.identifyTCP, m.guard(guardTCP(l.Addr(), m.routes())), nil))
	return nil
}

// metadata is the emulated server.
type metadata struct {
	Metadata
	a *Agent
}

func (m *metadata) routes() http.Handler {
	mux := http.NewServeMux()
	line := func(path, text string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { plainly(w, text) })
	}
	line("/{$}", "computeMetadata/\n")
	for path, text := range map[string]string{"/computeMetadata/v1": "instance/\nproject/\nuniverse/\n", "/computeMetadata/v1/instance": "service-accounts/\n",
		"/computeMetadata/v1/project": "numeric-project-id\nproject-id\n"} {
		line(path, text)
		line(path+"/{$}", text)
	}
	line("/computeMetadata/v1/universe/universe-domain", "googleapis.com")
	mux.HandleFunc("GET /computeMetadata/v1/project/project-id", m.known("project_id", m.Project))
	mux.HandleFunc("GET /computeMetadata/v1/project/numeric-project-id", m.known("numeric_project_id", m.Number))
	mux.HandleFunc("GET "+accountsPath+"{$}", m.accounts)
	mux.HandleFunc("GET "+accountsPath+"{account}/{$}", m.account)
	mux.HandleFunc("GET "+accountsPath+"{account}/{what}", m.account)
	return forJobs(mux)
}

// guard does what Google's server does: it answers to requests that are for it, and for nobody behind a proxy.
func (m *metadata) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(flavorHeader, flavor)
		_, malformed := url.ParseQuery(r.URL.RawQuery)
		switch {
		case malformed != nil:
			refuse(w, tokenbroker.Invalid("query", errors.New("can't be read")))
		case r.Header.Get(flavorHeader) != flavor:
			problem(w, http.StatusForbidden, statusOf(tokenbroker.Invalid("header", errors.New("Metadata-Flavor: Google is missing"))))
		case r.Header.Get("X-Forwarded-For") != "":
			refuse(w, &tokenbroker.Problem{Err: tokenbroker.ErrNotAllowed, Detail: "the request came by a proxy"})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// known answers with a setting, if there is one.
func (m *metadata) known(key, value string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if value == "" {
			missing(w, "the agent's config has no metadata."+key)
			return
		}
		plainly(w, value)
	}
}

// accounts lists the one account that there is.
func (m *metadata) accounts(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("recursive") != "true" {
		plainly(w, strings.Join(m.names(), "/\n")+"/\n")
		return
	}
	all := map[string]any{}
	for _, name := range m.names() {
		all[name] = m.description(r)
	}
	answer(w, http.StatusOK, all)
}

func (m *metadata) names() []string { return slices.Compact([]string{"default", m.Email}) }

// account answers what is asked of the account.
func (m *metadata) account(w http.ResponseWriter, r *http.Request) {
	if name := r.PathValue("account"); !slices.Contains(m.names(), name) {
		missing(w, "there is no such service account: there are "+strings.Join(m.names(), " and "))
		return
	}
	switch r.PathValue("what") {
	case "":
		if r.URL.Query().Get("recursive") == "true" {
			answer(w, http.StatusOK, m.description(r))
			return
		}
		plainly(w, "aliases\nemail\nscopes\ntoken\n")
	case "token":
		m.token(w, r)
	case "email":
		plainly(w, m.Email)
	case "aliases":
		plainly(w, "default\n")
	case "scopes":
		plainly(w, strings.Join(append(m.scopes(r), ""), "\n"))
	case "identity":
		missing(w, "the agent gives access tokens and no identity tokens: only Google's own metadata server can vouch for a machine")
	default:
		missing(w, "the emulated metadata server has no such entry")
	}
}

// description is what SDKs read of the account before they ask for a token.
func (m *metadata) description(r *http.Request) any {
	return map[string]any{"aliases": []string{"default"}, "email": m.Email, "scopes": append([]string{}, m.scopes(r)...)}
}

// scopes are those of the credential, for callers who may have its token; none if they can't be had. No token leaves for it.
func (m *metadata) scopes(r *http.Request) []string {
	if p := caller(r.Context()); !m.a.rules.Load().decide(p, m.Credential).allowed || m.a.hurried(p.UID) != nil {
		return nil
	}
	tok, err := m.a.cfg.Client.Token(r.Context(), m.Credential)
	if err != nil {
		return nil
	}
	return tok.Scopes
}

// token gives a token in the form that SDKs read.
func (m *metadata) token(w http.ResponseWriter, r *http.Request) {
	q := question{peer: caller(r.Context()), credential: m.Credential, began: time.Now(), id: requestID()}
	if asked := r.URL.Query().Get("scopes"); asked != "" && !m.IgnoreScopes {
		q.scopes = strings.Split(asked, ",")
	}
	tok, err := m.a.plainToken(r.Context(), q)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
		TokenType   string `json:"token_type"`
	}{tok.AccessToken.Reveal(), secondsLeft(tok), scheme(tok.Type)})
}

// plainly answers with a text as it is.
func plainly(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "application/text")
	_, _ = w.Write([]byte(text))
}

// missing says what there is not, and why.
func missing(w http.ResponseWriter, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	_, _ = fmt.Fprintln(w, why)
}
