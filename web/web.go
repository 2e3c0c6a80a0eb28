package web

import (
	"context"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/consent"
)

// Consents is what the pages speak for. See consent.Service.
type Consents interface {
	// Invitation says what a link asks for. It changes nothing.
	Invitation(ctx context.Context, link string, browser func(id string) tokenbroker.Secret) (consent.Invitation, error)
	// Depart binds a link to a browser and sends that to the provider.
	Depart(ctx context.Context, link string, browser func(id string) tokenbroker.Secret) (consent.Departure, error)
	// Return takes what the provider sent the browser back with.
	Return(ctx context.Context, query string, browser func(id string) tokenbroker.Secret) (tokenbroker.Consent, error)
	// Outcome says how a consent stands. It changes nothing.
	Outcome(ctx context.Context, id string, browser tokenbroker.Secret) (tokenbroker.Consent, error)
}

// Config is what a Handler needs.
type Config struct {
	Consents  Consents     // required
	PublicURL string       // what browsers reach the pages by, https://HOST[:PORT]; required
	Log       *slog.Logger // nil = slog.Default()
}

const (
	maxBody   = 16 << 10
	stylePath = "/consent/style.css"
	donePath  = "/consent/done"
	stopPath  = "/consent/stopped/"
)

// Handler serves the pages.
type Handler struct {
	consents  Consents
	host      string // as a browser sends it
	hsts      bool
	log       *slog.Logger
	mux       *http.ServeMux
	rates     *rates
	templates *template.Template
}

// New makes a Handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Consents == nil {
		return nil, errors.New("web: Config.Consents is missing")
	}
	u, err := consent.ParsePublicURL(cfg.PublicURL)
	if err != nil {
		return nil, err
	}
	templates, err := template.ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	h := &Handler{templates: templates, consents: cfg.Consents, host: browserHost(u.Host), log: cfg.Log, mux: http.NewServeMux(), rates: newRates()}
	_, err = netip.ParseAddr(u.Hostname())
	h.hsts = err != nil && u.Hostname() != "localhost" // of which a browser would make a rule for all that is on this machine
	h.mux.HandleFunc(consent.LinkPath+"{link}", h.only(map[string]http.HandlerFunc{http.MethodGet: h.invite, http.MethodHead: h.invite, http.MethodPost: h.depart}))
	h.mux.HandleFunc(consent.CallbackPath, h.only(map[string]http.HandlerFunc{http.MethodGet: h.callback}))
	h.mux.HandleFunc(donePath, h.only(map[string]http.HandlerFunc{http.MethodGet: h.done, http.MethodHead: h.done}))
	h.mux.HandleFunc(stopPath+"{why}", h.only(map[string]http.HandlerFunc{http.MethodGet: h.stopped, http.MethodHead: h.stopped}))
	h.mux.HandleFunc(stylePath, h.only(map[string]http.HandlerFunc{http.MethodGet: h.style, http.MethodHead: h.style}))
	h.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { h.say(w, stopNothing) })
	return h, nil
}

// browserHost is a host as browsers write it: in lower case, and without the port of https.
func browserHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ":443")) }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.protect(w.Header(), "")
	switch {
	case !h.rates.take(r.RemoteAddr, time.Now()):
		w.Header().Set("Retry-After", "2")
		h.say(w, stopRate)
	case browserHost(r.Host) != h.host:
		h.say(w, stopHost)
	default:
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h.mux.ServeHTTP(w, r)
	}
}

// protect sets the headers that every answer has. form is one more source that a form may lead to.
func (h *Handler) protect(head http.Header, form string) {
	action := "'self'"
	if form != "" {
		action += " " + form
	}
	head.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action "+action+"; frame-ancestors 'none'; base-uri 'none'")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Frame-Options", "DENY")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Cache-Control", "no-store")
	if h.hsts {
		head.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// only serves some methods and refuses the others.
func (h *Handler) only(methods map[string]http.HandlerFunc) http.HandlerFunc {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		if methods[m] != nil {
			allow = append(allow, m)
		}
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if serve := methods[r.Method]; serve != nil {
			serve(w, r)
			return
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		h.say(w, stopMethod)
	}
}
