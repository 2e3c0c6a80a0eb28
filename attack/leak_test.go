package attack_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// ways is in how many ways a leak answers a token request. Those below good say what it was sent.
const (
	ways = 12
	good = ways - 1
)

// wayOf finds the way in a refresh token.
var wayOf = regexp.MustCompile(`-way-(\d+)-`)

// leak is an authorization server that says in its replies whatever it was sent. In which way stands in the refresh token.
type leak struct {
	*httptest.Server

	mu      sync.Mutex
	secrets map[string]bool // what it was sent, and the tokens that it gave
	asked   map[int]int     // way → how often
	revoked int
}

func newLeak(t testing.TB) *leak {
	t.Helper()
	l := &leak{secrets: map[string]bool{}, asked: map[int]int{}}
	l.Server = httptest.NewUnstartedServer(l)
	l.Config.ErrorLog = log.New(io.Discard, "", 0)
	l.StartTLS()
	t.Cleanup(l.Close)
	return l
}

// entry is it in the config. All servers of httptest have one certificate.
func (l *leak) entry() string {
	return fmt.Sprintf("leak: {token_endpoint: %[1]s/token, revocation_endpoint: %[1]s/revoke, introspection_endpoint: %[1]s/introspect, "+
		"ca_file: upstream.pem, allow_private: true, rate: 10000, burst: 10000}\n", l.URL)
}

// ServeHTTP implements http.Handler.
func (l *leak) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	way := 0
	if m := wayOf.FindStringSubmatch(r.PostForm.Get("refresh_token")); m != nil {
		way, _ = strconv.Atoi(m[1])
	}
	sent := l.note(r, way)
	if way == good {
		access, refresh := "canary-access-"+rand.Text(), fmt.Sprintf("canary-rotated-way-%d-%s", good, rand.Text())
		l.keep(access, refresh)
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"refresh_token":%q,"token_type":"Bearer","expires_in":3600}`, access, refresh)
		return
	}
	l.say(w, way, strings.Join(sent, " "))
}

// note keeps what came in a request, and counts it.
func (l *leak) note(r *http.Request, way int) (sent []string) {
	for _, field := range []string{"refresh_token", "client_secret", "client_assertion", "assertion", "token"} {
		if v := r.PostForm.Get(field); v != "" {
			sent = append(sent, v)
		}
	}
	if id, pass, ok := r.BasicAuth(); ok && id != "" {
		pass, _ = url.QueryUnescape(pass) // RFC 6749 §2.3.1
		sent = append(sent, pass)
	}
	l.keep(sent...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.URL.Path == "/token" {
		l.asked[way]++
	} else {
		l.revoked++
	}
	return sent
}

func (l *leak) keep(secrets ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range secrets {
		l.secrets[s] = true
	}
}

// say answers with what was sent, in one of the ways.
func (l *leak) say(w http.ResponseWriter, way int, sent string) {
	reply := func(code int, format string, a ...any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, format, a...)
	}
	access := "canary-access-" + rand.Text()
	l.keep(access)
	switch way {
	case 0:
		reply(http.StatusBadRequest, `{"error":"invalid_request","error_description":%q,"error_uri":"https://leak.example/?%s"}`, sent, url.QueryEscape(sent))
	case 1:
		reply(http.StatusBadRequest, `{"error":%q}`, sent)
	case 2:
		w.Header().Set("WWW-Authenticate", `Basic realm="`+sent+`"`)
		reply(http.StatusUnauthorized, `{"error":"invalid_client","error_description":%q,"refresh_token":%q}`, sent, sent)
	case 3:
		reply(http.StatusServiceUnavailable, "<html>%s</html>", sent)
	case 4:
		reply(http.StatusOK, "%s", sent)
	case 5:
		reply(http.StatusOK, `{"access_token":%q,"token_type":%q,"expires_in":3600}`, access, sent)
	case 6:
		reply(http.StatusOK, `{"access_token":%q,"token_type":"Bearer","expires_in":%q}`, access, sent)
	case 7:
		w.Header().Set("Location", "https://leak.example/?"+url.QueryEscape(sent))
		reply(http.StatusTemporaryRedirect, "")
	case 8:
		w.Header().Set("Retry-After", sent)
		w.Header().Set("X-Request-Id", base64.StdEncoding.EncodeToString([]byte(sent)))
		reply(http.StatusTooManyRequests, `{"error":"slow_down","error_description":%q}`, sent)
	case 9:
		w.Header().Set("Content-Length", "100000") // and ends in the middle
		reply(http.StatusOK, `{"access_token":%q,"id_token":%q,"x":"%s`, access, sent, sent)
	default:
		reply(http.StatusOK, `{"access_token":%q,"token_type":"Bearer","expires_in":3600,"scope":%q,"access_token":%q}`, access, sent, access)
	}
}
