package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	anyPort      = "{port}"         // stands in a profile's loopback redirect for a port that the provider does not compare (RFC 8252 §7.3)
	donePath     = "/tokenctl/done" // where the browser ends up: no code is in its address bar or history entry
	pageWait     = 3 * time.Second  // how long a browser has to fetch the last page
	maxHeader    = 32 << 10         // a code and a state fit well
	loopbackRead = 10 * time.Second // for one request
	resultWait   = 2 * time.Minute  // how long the last page waits for the exchange
	usualReturn  = "http://127.0.0.1:{port}/callback"
)

// catcher is a one-shot listener on this machine, for the redirect that ends a consent. It takes one GET of the exact path, with the Host of
// the redirect URI and the state of the consent; everything else is turned away and changes nothing.
type catcher struct {
	uri       *url.URL // the redirect URI, its port filled in
	listeners []net.Listener
	server    *http.Server
	serving   sync.WaitGroup

	state  string // the only one that is taken; "" = any, where the authorization URL shows none
	once   sync.Once
	caught chan string   // the whole URL of the redirect
	result chan struct{} // closed when it is known how the consent ended
	good   bool          // it went well; valid once result is closed
	shown  chan struct{} // closed when the browser has fetched the last page
	seen   sync.Once
}

// listen opens the port that a redirect URI names, or any. Close it.
func listen(ctx context.Context, template string, port int) (*catcher, error) {
	wanted := strconv.Itoa(port)
	uri, err := url.Parse(strings.Replace(template, anyPort, wanted, 1))
	if err != nil || uri.Scheme != "http" || uri.Path == "" || uri.Path == donePath {
		return nil, noLoopback()
	}
	if port != 0 && uri.Port() != wanted {
		return nil, usagef("--port: the provider wants the redirect URI %s and no other port", template)
	}
	c := &catcher{uri: uri, caught: make(chan string, 1), result: make(chan struct{}), shown: make(chan struct{})}
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	c.server = &http.Server{Handler: c, MaxHeaderBytes: maxHeader, ReadTimeout: loopbackRead, ErrorLog: nil}
	c.server.SetKeepAlivesEnabled(false)
	return c, nil
}

func noLoopback() error {
	return &failure{exit: exitFix, what: "the provider takes no redirect to this machine",
		action: "consent with --link, or with --device if it has that"}
}

// open listens on the addresses that a browser can mean by the host.
func (c *catcher) open(ctx context.Context) error {
	hosts := map[string][]string{"127.0.0.1": {"127.0.0.1"}, "::1": {"::1"}, "localhost": {"127.0.0.1", "::1"}}[c.uri.Hostname()]
	if hosts == nil {
		return noLoopback()
	}
	var config net.ListenConfig
	for i, host := range hosts {
		l, err := config.Listen(ctx, "tcp", net.JoinHostPort(host, or(c.uri.Port(), "80")))
		if err != nil && i == 0 {
			return &failure{exit: exitFix, what: "can't listen on " + c.uri.Host + ": " + inner(err), err: err,
				action: "end what listens there, or consent with --no-browser"}
		}
		if err != nil { // a machine without IPv6
			continue
		}
		c.uri.Host = net.JoinHostPort(c.uri.Hostname(), strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		c.listeners = append(c.listeners, l)
	}
	return nil
}

// serve begins to answer. The state is that of the authorization URL.
func (c *catcher) serve(state string) {
	c.state = state
	for _, l := range c.listeners {
		c.serving.Go(func() { _ = c.server.Serve(l) })
	}
}

// ended tells the last page how it went, and waits until the browser has it, for a moment.
func (c *catcher) ended(ctx context.Context, good bool) {
	c.good = good
	close(c.result)
	limit := time.NewTimer(pageWait)
	defer limit.Stop()
	select {
	case <-c.shown:
	case <-ctx.Done():
	case <-limit.C:
	}
}

// Close ends the listener and waits for what is being answered.
func (c *catcher) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), pageWait)
	defer cancel()
	if err := c.server.Shutdown(ctx); err != nil {
		_ = c.server.Close()
	}
	for _, l := range c.listeners { // those that were never served
		_ = l.Close()
	}
	c.serving.Wait()
}

// ServeHTTP implements http.Handler.
func (c *catcher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src '"+styleHash()+"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case r.Host != c.uri.Host:
		http.Error(w, "this is not the host of the redirect URI", http.StatusMisdirectedRequest)
	case r.Method != http.MethodGet:
		h.Set("Allow", http.MethodGet)
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
	case r.URL.Path == donePath:
		c.done(w, r)
	case r.URL.EscapedPath() == c.uri.EscapedPath():
		c.catch(w, r)
	default:
		http.Error(w, "there is nothing here", http.StatusNotFound)
	}
}

// catch takes the redirect.
func (c *catcher) catch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case !q.Has("code") && !q.Has("error"):
		http.Error(w, "the provider sent neither a code nor an error", http.StatusBadRequest)
		return
	case c.state != "" && (len(q["state"]) != 1 || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(c.state)) != 1):
		http.Error(w, "this is not the answer to the consent that waits here", http.StatusBadRequest)
		return
	}
	first := false
	c.once.Do(func() { first = true })
	if !first {
		http.Error(w, "this consent was answered already", http.StatusConflict)
		return
	}
	whole := *c.uri
	whole.RawQuery = r.URL.RawQuery
	c.caught <- whole.String()
	http.Redirect(w, r, donePath, http.StatusSeeOther)
}

// done shows how it went, as soon as that is known.
func (c *catcher) done(w http.ResponseWriter, r *http.Request) {
	limit := time.NewTimer(resultWait)
	defer limit.Stop()
	title, text := "The terminal knows more", "You can close this window."
	select {
	case <-c.result:
		if title = "That did not work"; c.good {
			title = "Connected"
		}
		if !c.good {
			text = "The terminal says why. You can close this window."
		}
	case <-r.Context().Done():
		return
	case <-limit.C:
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, lastPage(title, text))
	c.seen.Do(func() { close(c.shown) })
}

const style = `body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:18vh auto;padding:0 1rem;color:#222;background:#fff}h1{font-size:1.5rem}` +
	`@media(prefers-color-scheme:dark){body{color:#eee;background:#1b1b1b}}`

func styleHash() string {
	sum := sha256.Sum256([]byte(style))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// lastPage is the last page. Nothing in it comes from anywhere else.
func lastPage(title, text string) string {
	return fmt.Sprintf(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">`+
		`<title>tokenctl: %s</title><style>%s</style></head><body><main><h1>%s</h1><p>%s</p></main></body></html>`, title, style, title, text)
}

var errNotAWebAddress = errors.New("not a web address")

// webAddress checks a URL of the broker before it goes to a browser or a terminal: nothing that could run a program, or be a flag of one.
func webAddress(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || clean(text) != text || strings.ContainsAny(text, " \"<>`") {
		return nil, fmt.Errorf("the broker gave a URL to open that is %w", errNotAWebAddress)
	}
	return u, nil
}
