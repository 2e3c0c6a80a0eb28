package sandbox

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// What the tokens of every sandbox begin with.
const (
	AccessPrefix  = "sandbox_at_"
	RefreshPrefix = "sandbox_rt_"
	CodePrefix    = "sandbox_code_" // authorization codes
	DevicePrefix  = "sandbox_dev_"  // device codes
)

// maxBody bounds a request's body in bytes.
const maxBody = 64 << 10

var (
	errDropped      = fmt.Errorf("sandbox: connection dropped: %w", io.ErrUnexpectedEOF)
	errBodyTooLarge = fmt.Errorf("body exceeds %d bytes", maxBody)
)

// Server is the authorization server. Its methods may be called by many goroutines.
type Server struct {
	issuers   map[string]*issuer // name → issuer; the map itself never changes
	clock     *clock
	dice      *dice
	journal   *journal
	allowHTTP bool
}

// New returns a server, or everything that is wrong with the configuration. It starts nothing and needs no closing.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("sandbox configuration: %w", err)
	}
	s := &Server{
		issuers:   map[string]*issuer{},
		clock:     &clock{},
		dice:      newDice(cfg.Seed),
		journal:   newJournal(cfg.JournalSize),
		allowHTTP: cfg.AllowHTTP,
	}
	for _, i := range cfg.Issuers {
		s.issuers[i.Name] = newIssuer(i, s.clock)
	}
	return s, nil
}

// visit is one request on its way through the server.
type visit struct {
	request  *http.Request // for method, URL and headers; its body is already read
	clock    *clock
	tls      bool                // came over TLS
	secure   bool                // came over TLS, or is allowed not to
	peers    []*x509.Certificate // what the client showed, its own first
	issuer   *issuer             // nil: no such issuer
	endpoint Endpoint            // "": no such endpoint
	body     []byte
	bodyErr  error
	form     form
	fault    *taken // nil: none
	now      time.Time
}

// answer is what goes back.
type answer struct {
	status int
	header http.Header
	body   []byte
	code   string        // OAuth error code, for the journal
	cut    int           // bytes of body after which the connection breaks; negative = it does not
	drip   time.Duration // pause before each byte of the body
}

// respond journals and answers one request. An error means that the connection breaks instead: errDropped, errRefused, or
// the context's.
func (s *Server) respond(v *visit) (answer, error) {
	if v.fault != nil {
		defer v.fault.done()
	}
	rec := s.journal.open(v.entry())
	a, processed, err := v.answer(v.request.Context())
	if err != nil {
		a = answer{code: a.code}
	} else if _, scripted := a.header["Date"]; !scripted {
		a.header.Set("Date", v.time().UTC().Format(http.TimeFormat))
	}
	s.journal.close(rec, a.status, a.code, processed)
	return a, err
}

// receive reads a request and finds the fault that awaits it. respond must follow.
func (s *Server) receive(r *http.Request, tls bool, peers []*x509.Certificate) *visit {
	v := &visit{request: r, clock: s.clock, tls: tls, secure: tls || s.allowHTTP, peers: peers, now: s.Now()}
	name, endpoint := route(r.URL.Path)
	if i := s.issuers[name]; i != nil && endpoints()[endpoint] != nil {
		v.issuer, v.endpoint = i, endpoint
	}
	v.body, v.bodyErr = readBody(r.Body)
	v.form = readForm(v)
	if v.issuer != nil && v.bodyErr == nil {
		v.fault = v.issuer.take(v, s.dice)
	}
	return v
}

func readBody(r io.Reader) ([]byte, error) {
	if r == nil {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(b) > maxBody {
		err = errBodyTooLarge
	}
	return b, err
}

// answer processes the request unless a fault comes before it, and reports whether it did.
func (v *visit) answer(ctx context.Context) (a answer, processed bool, err error) {
	if v.fault == nil {
		return v.process(), true, nil
	}
	f := v.fault.Fault
	if f.Stage == BeforeProcessing {
		if err := v.fault.wait(ctx); err != nil {
			return answer{}, false, err
		}
		if f.replaces() {
			return f.apply(answer{cut: -1, header: http.Header{}}, v.time()), false, nil
		}
	}
	a = v.process()
	if f.Stage == AfterCommit {
		if err := v.fault.wait(ctx); err != nil {
			return a, true, err
		}
	}
	return f.apply(a, v.time()), true, nil
}

// process answers as the rules have it. The state changes here and nowhere else.
func (v *visit) process() answer {
	v.now = v.time()
	switch {
	case v.issuer == nil:
		return textAnswer(http.StatusNotFound, "no such issuer or endpoint\n")
	case !v.secure:
		return failed(http.StatusBadRequest, "invalid_request", "use https").answer()
	}
	v.issuer.mu.Lock()
	defer v.issuer.mu.Unlock()
	return endpoints()[v.endpoint](v)
}

// time is the server's idea of it, as the fault of this request has it.
func (v *visit) time() time.Time {
	now := v.clock.now()
	if v.fault != nil {
		now = now.Add(v.fault.Skew)
	}
	return now
}

// life is how long an access token issued now lives.
func (v *visit) life() time.Duration {
	if v.fault != nil && v.fault.Life > 0 {
		return v.fault.Life
	}
	return v.issuer.AccessLife
}

// base is the issuer identifier.
func (v *visit) base() string {
	if v.issuer.URL != "" {
		return strings.TrimSuffix(v.issuer.URL, "/")
	}
	scheme, host := "http", cmp.Or(v.request.Host, v.request.URL.Host)
	if v.tls {
		scheme = "https"
	}
	return scheme + "://" + host + "/" + v.issuer.Name
}

// url is where an endpoint of the issuer is.
func (v *visit) url(e Endpoint) string { return v.base() + "/" + string(e) }

func textAnswer(status int, text string) answer {
	h := http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
	return answer{status: status, header: h, body: []byte(text), cut: -1}
}

func (s *Server) mustIssuer(name string) *issuer {
	i := s.issuers[name]
	if i == nil {
		panic(fmt.Sprintf("sandbox: no issuer %q", name))
	}
	return i
}
