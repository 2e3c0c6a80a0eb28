package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"time"
)

// Peer is the client at the other end of a connection.
type Peer struct {
	Identity    string    // see [Identity]
	Fingerprint string    // SHA-256 of the leaf certificate, lower-case hex: what an audit record names
	Serial      string    // of the leaf certificate, lower-case hex: what a deny list names
	Issuer      string    // the distinguished name of whoever issued the leaf certificate (RFC 4514), written so that equal names have equal texts
	NotAfter    time.Time // when the first certificate of the verified chain ends; the connection must not outlive it
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
