package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Public holds the certificate of a listener that anybody may reach, such as one for browsers, and swaps it when its files change. It asks
// for no client certificate, so it says nothing of who calls. It is safe for concurrent use.
type Public struct {
	cert, key string
	reload    sync.Mutex // one Reload at a time
	current   atomic.Pointer[material]
}

// OpenPublic reads a certificate chain and its key, which may be open to its owner alone. It refuses what [Public.Reload] refuses.
func OpenPublic(cert, key string) (*Public, error) {
	p := &Public{cert: cert, key: key}
	if _, err := p.Reload(); err != nil {
		return nil, err
	}
	return p, nil
}

// Reload is [Source.Reload] for the two files.
func (p *Public) Reload() (changed bool, err error) {
	p.reload.Lock()
	defer p.reload.Unlock()
	old := p.current.Load()
	next, err := p.load(old)
	if err != nil {
		return false, err
	}
	if err := next.checkChain(time.Now()); err != nil {
		return false, err
	}
	p.current.Store(next)
	return next != old, nil
}

// load reads the files. If they hold what old was made of, it returns old.
func (p *Public) load(old *material) (*material, error) {
	certPEM, certErr := readFile("certificate file", p.cert, false)
	keyPEM, keyErr := readFile("key file", p.key, true)
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	sum := digest(certPEM, keyPEM)
	if old != nil && old.digest == sum {
		return old, nil
	}
	chain, err := parseChain(certPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate file %q: %w", p.cert, err)
	}
	pair, err := keyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("key file %q with certificate file %q: %w", p.key, p.cert, err)
	}
	return &material{digest: sum, cert: pair, chain: chain, from: fmt.Sprintf("certificate file %q", p.cert)}, nil
}

// Watch is [Source.Watch] for the two files.
func (p *Public) Watch(ctx context.Context, interval time.Duration, notify func(error)) {
	watch(ctx, interval, nil, p.Reload, notify)
}

// TLS returns the configuration of a listener for browsers: TLS 1.2 or newer, HTTP/2 or 1.1. Every later handshake is served by what the
// Public holds by then.
func (p *Public) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &p.current.Load().cert, nil }}
}

// Expiry is when the first certificate of the chain in use ends.
func (p *Public) Expiry() time.Time { return firstEnd(p.current.Load().chain) }

// Fingerprint is the SHA-256 of the leaf certificate in use, in lower-case hex.
func (p *Public) Fingerprint() string { return fingerprint(p.current.Load().chain[0]) }
