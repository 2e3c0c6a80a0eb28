package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
)

// ClientTLS returns the configuration of a client of one server. expect says who that must be: a SPIFFE ID
// ("spiffe://example.org/broker"), or else the DNS name or IP address, without port, that its certificate has to hold.
// In each handshake the server is verified against the bundle in use, and shown the certificate in use.
func (s *Source) ClientTLS(expect string) (*tls.Config, error) {
	cfg := baseTLS()
	matcher := matchID
	if !strings.HasPrefix(expect, "spiffe:") {
		matcher = matchName
		cfg.ServerName = expect
	}
	match, err := matcher(expect)
	if err != nil {
		return nil, fmt.Errorf("expected server %s: %w", quote(expect), err)
	}
	// RootCAs would be fixed for the life of the configuration, so VerifyConnection does all the verifying.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := s.current.Load().verifyServer(cs, expect, match); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
		}
		return nil
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &s.current.Load().cert, nil
	}
	return cfg, nil
}

// baseTLS is what both ends have in common.
func baseTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, SessionTicketsDisabled: true}
}

func (m *material) verifyServer(cs tls.ConnectionState, expect string, match func(*x509.Certificate) error) error {
	if len(cs.PeerCertificates) == 0 || cs.DidResume {
		return errors.New("server sent no certificate in this handshake")
	}
	anchors, err := m.trust.server(expect)
	if err != nil {
		return err
	}
	leaf := cs.PeerCertificates[0]
	if _, err := anchors.verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	if err := errors.Join(refuseSigner(leaf), requireUsage(leaf, x509.ExtKeyUsageServerAuth, "serverAuth")); err != nil {
		return fmt.Errorf("server's %w", err)
	}
	return match(leaf)
}

func matchID(expect string) (func(*x509.Certificate) error, error) {
	want, err := parseSPIFFE(expect)
	if err != nil {
		return nil, err
	}
	return func(leaf *x509.Certificate) error {
		got, err := Identity(leaf, false)
		if err != nil {
			return fmt.Errorf("server's %w", err)
		}
		if got != want.String() {
			return fmt.Errorf("server is %s, not %s: check the address, or whom this client expects", got, want)
		}
		return nil
	}, nil
}

func matchName(expect string) (func(*x509.Certificate) error, error) {
	if expect == "" {
		return nil, errors.New("is empty: give the server's SPIFFE ID, DNS name or IP address")
	}
	if _, _, err := net.SplitHostPort(expect); err == nil || strings.Contains(expect, "/") {
		return nil, errors.New("is not a bare host: leave out scheme, port and path")
	}
	return func(leaf *x509.Certificate) error { return leaf.VerifyHostname(expect) }, nil
}
