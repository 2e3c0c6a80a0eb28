package mtls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Peer is the client at the other end of a connection.
type Peer struct {
	Identity    string    // see [Identity]
	Fingerprint string    // SHA-256 of the leaf certificate, lower-case hex: what an audit record names
	Serial      string    // of the leaf certificate, lower-case hex: what a deny list names
	NotAfter    time.Time // when the first certificate of the verified chain ends; the connection must not outlive it
}

// PeerFromState returns the client of a handshake that a configuration of [Source.ServerTLS] made, or that it is about to
// accept. It wants a chain that crypto/tls verified, in a full handshake, to a certificate that lists clientAuth and has
// not ended. allowDNS is as in [Identity].
func PeerFromState(cs tls.ConnectionState, allowDNS bool) (Peer, error) {
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
	id, err := Identity(leaf, allowDNS)
	if err != nil {
		return Peer{}, fmt.Errorf("peer's %w", err)
	}
	end := lastEnd(cs.VerifiedChains)
	if !time.Now().Before(end) {
		return Peer{}, fmt.Errorf("peer's certificate chain ended at %s: issue a new one", stamp(end))
	}
	return Peer{Identity: id, Fingerprint: fingerprint(leaf), Serial: leaf.SerialNumber.Text(16), NotAfter: end}, nil
}

// lastEnd is when the last of the chains stops being valid: while a CA is being renewed, an old and a new one may both do.
func lastEnd(chains [][]*x509.Certificate) time.Time {
	var last time.Time
	for _, chain := range chains {
		if end := firstEnd(chain); end.After(last) {
			last = end
		}
	}
	return last
}

// firstEnd is the earliest NotAfter of a chain.
func firstEnd(chain []*x509.Certificate) time.Time {
	end := chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// stamp writes a time in an error the same way at each poll, so that a lasting problem is told once.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
