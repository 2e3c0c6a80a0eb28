package sandbox

import (
	"crypto/x509"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// ServeHTTP implements [http.Handler]. To break a connection it panics with [http.ErrAbortHandler], as net/http has it; a
// middleware that recovers must let that one through. Before a server is shut down its hanging requests must be released.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var peers []*x509.Certificate
	if r.TLS != nil {
		peers = r.TLS.PeerCertificates
	}
	a, err := s.respond(s.receive(r, r.TLS != nil, peers))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), a.header)
	if hasBody(r.Method, a.status) {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	if hasBody(r.Method, a.status) {
		send(w, r, a)
	}
}

// send writes the body and flushes what must arrive before a pause or a break.
func send(w http.ResponseWriter, r *http.Request, a answer) {
	out := http.NewResponseController(w)
	body := a.body
	if a.cut >= 0 {
		body = body[:a.cut]
	}
	for chunk := range pieces(body, a.drip) {
		if sleep(r.Context(), a.drip) != nil {
			panic(http.ErrAbortHandler)
		}
		if _, err := w.Write(chunk); err != nil {
			panic(http.ErrAbortHandler)
		}
		if a.drip > 0 && out.Flush() != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if a.cut >= 0 && len(a.body) > a.cut {
		_ = out.Flush() // the connection is about to break anyway
		panic(http.ErrAbortHandler)
	}
}

// pieces yields the body byte by byte if it drips, else whole.
func pieces(body []byte, drip time.Duration) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		size := max(1, len(body))
		if drip > 0 {
			size = 1
		}
		for start := 0; start < len(body); start += size {
			if !yield(body[start:min(start+size, len(body))]) {
				return
			}
		}
	}
}

func hasBody(method string, status int) bool {
	return method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified
}
