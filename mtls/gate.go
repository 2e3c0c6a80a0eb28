package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ServerOptions say whom a listener lets in. The zero value lets in every SPIFFE ID that a bundle vouches for.
type ServerOptions struct {
	AllowDNS bool             // take the DNS name of a certificate without URI SAN for its identity, as "dns:" + name
	Deny     *DenyList        // certificates that are refused all the same; nil = none
	Accept   func(Peer) error // asked last; its error refuses the peer. nil = everybody. Called concurrently
}

// Gate says who may come in by a listener, in the handshake and for as long as a connection lasts. It is safe for concurrent use.
type Gate struct {
	source *Source
	opts   ServerOptions
}

// Gate makes the Gate of a listener.
func (s *Source) Gate(opts ServerOptions) *Gate { return &Gate{source: s, opts: opts} }

// ServerTLS is the configuration of a listener's Gate.
func (s *Source) ServerTLS(opts ServerOptions) *tls.Config { return s.Gate(opts).TLS() }

// TLS returns the configuration of a listener: TLS 1.3, HTTP/2, no resumption, and a client certificate that [Gate.Peer] accepts with what
// was in use when the handshake began. It serves every later handshake too, with whatever the Source holds by then.
func (g *Gate) TLS() *tls.Config {
	cfg := baseTLS()
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	cfg.ClientCAs = x509.NewCertPool() // trusts nobody, should somebody strip GetConfigForClient
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return g.source.current.Load().serverTLS(g.opts), nil
	}
	return cfg
}

func (m *material) serverTLS(opts ServerOptions) *tls.Config {
	cfg := baseTLS()
	cfg.Certificates = []tls.Certificate{m.cert}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	cfg.ClientCAs = m.trust.union // whether the chain ends in the right bundle is looked at below
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := m.peer(cs, opts)
		return err
	}
	return cfg
}

// Revision rises each time that [Gate.Peer] may come to judge otherwise than before: with each certificate, bundle or deny list that is
// taken up.
func (g *Gate) Revision() uint64 { return g.source.revision.Load() + g.opts.Deny.Revision() }

// Peer returns the client of a handshake that the Gate's configuration made, by what is in use now: that a peer was let in once does not
// mean that it still would be. It wants a chain that crypto/tls verified, in a full handshake, to a certificate that lists clientAuth, a chain
// that has not ended and that leads to the bundle which vouches for the peer, and a certificate that is not denied (errors.Is
// [ErrDenied]).
func (g *Gate) Peer(cs tls.ConnectionState) (Peer, error) {
	return g.source.current.Load().peer(cs, g.opts)
}

func (m *material) peer(cs tls.ConnectionState, opts ServerOptions) (Peer, error) {
	switch {
	case len(cs.PeerCertificates) == 0:
		return Peer{}, errors.New("peer sent no certificate: give the client one")
	case cs.DidResume:
		return Peer{}, errors.New("session was resumed, its certificate was not checked again: switch session tickets off")
	case len(cs.VerifiedChains) == 0:
		return Peer{}, errors.New("peer's certificate was not verified: use a configuration of Source.ServerTLS")
	}
	leaf := cs.PeerCertificates[0]
	if err := requireUsage(leaf, x509.ExtKeyUsageClientAuth, "clientAuth"); err != nil {
		return Peer{}, fmt.Errorf("peer's %w", err)
	}
	id, err := Identity(leaf, opts.AllowDNS)
	if err != nil {
		return Peer{}, fmt.Errorf("peer's %w", err)
	}
	if trustDomain(id) != "" && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 { // X509-SVID §4.3
		return Peer{}, errors.New("peer's certificate lacks the key usage digitalSignature: issue it with that")
	}
	chains, err := m.trust.vouching(id, cs)
	if err != nil {
		return Peer{}, fmt.Errorf("peer says that it is %s: %w", quote(id), err)
	}
	end := lastEnd(chains)
	if !time.Now().Before(end) {
		return Peer{}, fmt.Errorf("peer's certificate chain ended at %s: issue a new one", stamp(end))
	}
	issuer, err := nameOf(leaf.RawIssuer)
	if err != nil {
		return Peer{}, fmt.Errorf("peer's certificate: %w", err)
	}
	peer := Peer{Identity: id, Fingerprint: fingerprint(leaf), Serial: leaf.SerialNumber.Text(16), Issuer: issuer, NotAfter: end}
	if err := opts.Deny.Check(peer); err != nil {
		return Peer{}, err
	}
	if opts.Accept != nil {
		if err := opts.Accept(peer); err != nil {
			return Peer{}, err
		}
	}
	return peer, nil
}

// vouching are the chains that lead from a peer to the bundle which vouches for its identity. A chain that was verified once stays good for
// as long as its CA is in the bundle; without such a chain there may be another one by now.
func (t *trust) vouching(identity string, cs tls.ConnectionState) ([][]*x509.Certificate, error) {
	b, err := t.client(identity)
	if err != nil {
		return nil, err
	}
	if chains := b.ending(cs.VerifiedChains); len(chains) > 0 {
		return chains, nil
	}
	chains, err := b.verify(cs.PeerCertificates, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, fmt.Errorf("no CA that may vouch for it does: %w", err)
	}
	return chains, nil
}
