package mtls_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tokenbroker/tokenbroker/mtls"
)

func named(names ...asn1.RawValue) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: workerID}, Extensions: []pkix.Extension{san(names...)}}
}

func TestIdentityIsTheOneSPIFFEID(t *testing.T) {
	rows := []struct {
		name     string
		cert     *x509.Certificate
		allowDNS bool
		want     string
	}{
		{"a SPIFFE ID", named(uri(workerID)), false, workerID},
		{"a SPIFFE ID beside DNS names", named(dns("a.example.org"), uri(workerID), dns("b.example.org")), true, workerID},
		{"a path with capitals and dots", named(uri("spiffe://td_1.x/Ns.1/_a-B")), false, "spiffe://td_1.x/Ns.1/_a-B"},
		{"a DNS name where that is allowed", named(dns("reports.example.org")), true, "dns:reports.example.org"},
		{"a DNS name of one label", named(dns("reports")), true, "dns:reports"},
		{"a DNS name beside an e-mail address", named(asn1.RawValue{Class: 2, Tag: 1, Bytes: []byte("a@b")}, dns("x-1.y")), true, "dns:x-1.y"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := mtls.Identity(row.cert, row.allowDNS)
			if err != nil || got != row.want {
				t.Errorf("identity: got %q, %v, want %q", got, err, row.want)
			}
		})
	}
}

func TestIdentityRefuses(t *testing.T) {
	ca, signer, lister := named(uri(workerID)), named(uri(workerID)), named(uri(workerID))
	ca.IsCA = true
	signer.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign
	lister.KeyUsage = x509.KeyUsageCRLSign
	broken := named(uri(workerID))
	broken.Extensions[0].Value = broken.Extensions[0].Value[:9]
	trailing := named(uri(workerID))
	trailing.Extensions[0].Value = append(trailing.Extensions[0].Value, 5, 0)
	rows := []struct {
		name     string
		cert     *x509.Certificate
		allowDNS bool
		want     string // in the error
	}{
		{"a CA certificate", ca, true, "CA:TRUE"},
		{"keyCertSign", signer, true, "keyCertSign"},
		{"cRLSign", lister, true, "cRLSign"},
		{"a name only in the CN", named(), false, "no URI SAN"},
		{"a name only in the CN, in DNS mode", named(), true, "0 DNS SANs"},
		{"a DNS name in SPIFFE mode", named(dns("worker.example.org")), false, "no URI SAN"},
		{"two URI SANs", named(uri(workerID), uri(brokerID)), false, "2 URI SANs"},
		{"the same URI SAN twice", named(uri(workerID), uri(workerID)), false, "2 URI SANs"},
		{"two URI SANs in DNS mode", named(uri(workerID), uri("https://a.b"), dns("worker")), true, "2 URI SANs"},
		{"another URI in DNS mode", named(uri("https://example.org/worker"), dns("worker")), true, "not a SPIFFE ID"},
		{"an unreadable SAN", broken, true, "can't be read"},
		{"bytes after the SAN", trailing, true, "can't be read"},
		{"an empty URI", named(uri("")), false, "not a SPIFFE ID"},
		{"a root path", named(uri("spiffe://example.org")), false, "no path"},
		{"a bare slash", named(uri("spiffe://example.org/")), false, "slash"},
		{"an upper-case trust domain", named(uri("spiffe://Example.org/worker")), false, "trust domain"},
		{"an upper-case scheme", named(uri("SPIFFE://example.org/worker")), false, "scheme"},
		{"a percent-encoded trust domain", named(uri("spiffe://ex%61mple.org/worker")), false, "trust domain"},
		{"a percent-encoded path", named(uri("spiffe://example.org/w%6frker")), false, "path segment"},
		{"a trailing slash", named(uri(workerID + "/")), false, "slash"},
		{"a double slash", named(uri("spiffe://example.org//worker")), false, "empty segment"},
		{"a dot segment", named(uri("spiffe://example.org/a/../worker")), false, "dot segment"},
		{"a NUL", named(uri(workerID + "\x00.evil")), false, `\x00`},
		{"an empty fragment", named(uri(workerID + "#")), false, "path segment"},
		{"an empty query", named(uri(workerID + "?")), false, "path segment"},
		{"a port", named(uri("spiffe://example.org:80/worker")), false, "trust domain"},
		{"user info", named(uri("spiffe://a@example.org/worker")), false, "trust domain"},
		{"no trust domain", named(uri("spiffe:///worker")), false, "trust domain"},
		{"a look-alike letter", named(uri("spiffe://exаmple.org/worker")), false, "trust domain"},
		{"a long trust domain", named(uri("spiffe://" + strings.Repeat("a", 256) + "/w")), false, "256 bytes"},
		{"a long ID", named(uri("spiffe://a/" + strings.Repeat("a", 2048))), false, "2059 bytes"},
		{"two DNS names", named(dns("a.example.org"), dns("b.example.org")), true, "2 DNS SANs"},
		{"an upper-case DNS name", named(dns("Worker.example.org")), true, "lower-case"},
		{"a wildcard", named(dns("*.example.org")), true, "wildcard"},
		{"a trailing dot", named(dns("worker.example.org.")), true, "host name"},
		{"a NUL in a DNS name", named(dns("worker\x00.example.org")), true, "host name"},
		{"a newline after a DNS name", named(dns("worker\n")), true, "host name"},
		{"an IP address as DNS name", named(dns("10.0.0.1")), true, "host name"},
		{"an empty DNS name", named(dns("")), true, "host name"},
		{"a long label", named(dns(strings.Repeat("a", 64))), true, "host name"},
		{"a long DNS name", named(dns(strings.Repeat("a.", 127))), true, "host name"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := mtls.Identity(row.cert, row.allowDNS)
			if err == nil {
				t.Fatalf("identity: got %q, want an error with %q", got, row.want)
			}
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("error: got %q, want one with %q", err, row.want)
			}
			if len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\x00\n") {
				t.Errorf("error does not fit a log line: %q", err)
			}
		})
	}
}

// FuzzIdentity gives any bytes as SAN extension; an identity that comes out must be one that the standards allow.
func FuzzIdentity(f *testing.F) {
	for _, cert := range []*x509.Certificate{
		named(uri(workerID)), named(dns("worker.example.org")), named(uri(workerID), uri(brokerID)), named(uri(workerID + "/")),
		named(uri("spiffe://EXAMPLE.org/%00")), named(dns("*.x")), named(dns("a\x00b"), uri("")), named(),
	} {
		f.Add(cert.Extensions[0].Value, false)
		f.Add(cert.Extensions[0].Value, true)
	}
	f.Fuzz(func(t *testing.T, value []byte, allowDNS bool) {
		ext := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}
		got, err := mtls.Identity(&x509.Certificate{Extensions: []pkix.Extension{ext}}, allowDNS)
		if err != nil {
			return
		}
		name, isDNS := strings.CutPrefix(got, "dns:")
		if isDNS && allowDNS && name != "" && name == strings.ToLower(name) && !strings.ContainsAny(name, "*%/: \x00") {
			return
		}
		id, err := spiffeid.FromString(got)
		if err != nil || len(id.Path()) < 2 || strings.HasSuffix(got, "/") || strings.Contains(got, "%") ||
			id.TrustDomain().Name() != strings.ToLower(id.TrustDomain().Name()) || !strings.Contains(string(value), got) {
			t.Errorf("identity %q of SAN %x is no SPIFFE ID of a workload (DNS allowed: %v)", got, value, allowDNS)
		}
	})
}
