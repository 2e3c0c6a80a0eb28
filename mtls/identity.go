package mtls

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	maxSPIFFEIDBytes    = 2048 // SPIFFE-ID §2.3
	maxTrustDomainBytes = 255  // SPIFFE-ID §2.1
	maxDNSNameBytes     = 253  // RFC 1035 §2.3.4, in text form
	maxQuotedBytes      = 120  // of a peer's text in an error
	dnsPrefix           = "dns:"
)

// Tags of a GeneralName (RFC 5280 §4.2.1.6).
const (
	tagDNSName = 2
	tagURI     = 6
)

var (
	dnsPattern  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	lastIsDigit = regexp.MustCompile(`(^|\.)[0-9]+$`) // an IP address written as a name
)

// Identity returns who cert speaks for: its SPIFFE ID, such as "spiffe://example.org/worker", or, if allowDNS, "dns:"
// and its DNS name. cert must come from x509.ParseCertificate; that its chain is good is for the caller to verify.
//
// A certificate with one URI SAN is judged by that alone: it must be a SPIFFE ID with a path, letter for letter as the
// X509-SVID and SPIFFE-ID standards want it. With none, and if allowDNS, the one DNS SAN must be a lower-case host name
// without wildcard. Anything else is an error that says what was wrong; so is a certificate that may sign others. The common name
// is never read.
func Identity(cert *x509.Certificate, allowDNS bool) (string, error) {
	if err := refuseSigner(cert); err != nil {
		return "", err
	}
	uris, names, err := alternativeNames(cert)
	switch {
	case err != nil:
		return "", err
	case len(uris) > 1:
		return "", fmt.Errorf("certificate has %d URI SANs, its identity is ambiguous: issue it with one SPIFFE ID", len(uris))
	case len(uris) == 1:
		return spiffeIdentity(uris[0])
	case !allowDNS:
		return "", errors.New("certificate has no URI SAN: issue it with a SPIFFE ID such as spiffe://example.org/worker (the common name is never read)")
	case len(names) != 1:
		return "", fmt.Errorf("certificate has no URI SAN and %d DNS SANs: issue it with one SPIFFE ID, or with one DNS name", len(names))
	}
	return dnsIdentity(names[0])
}

// refuseSigner keeps out certificates that could issue others: whoever holds one could be anybody.
func refuseSigner(cert *x509.Certificate) error {
	if cert.IsCA {
		return errors.New("certificate is a CA certificate (basicConstraints CA:TRUE): issue a leaf certificate and use that")
	}
	if cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return errors.New("certificate has key usage keyCertSign or cRLSign: issue it with digitalSignature only")
	}
	return nil
}

// alternativeNames reads the SANs as they were signed. [x509.Certificate.URIs] would not do: url.Parse lower-cases the
// scheme and drops an empty fragment, so that two different names could become one identity.
func alternativeNames(cert *x509.Certificate) (uris, names []string, err error) {
	oid := asn1.ObjectIdentifier{2, 5, 29, 17}
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(oid) {
			continue
		}
		var general []asn1.RawValue
		if rest, err := asn1.Unmarshal(ext.Value, &general); err != nil || len(rest) > 0 {
			return nil, nil, errors.New("certificate's subjectAltName can't be read: issue it again")
		}
		for _, n := range general {
			switch {
			case n.Class != asn1.ClassContextSpecific:
			case n.Tag == tagURI:
				uris = append(uris, string(n.Bytes))
			case n.Tag == tagDNSName:
				names = append(names, string(n.Bytes))
			}
		}
	}
	return uris, names, nil
}

func spiffeIdentity(uri string) (string, error) {
	id, err := parseSPIFFE(uri)
	if err != nil {
		return "", fmt.Errorf("certificate's URI SAN %s: %w", quote(uri), err)
	}
	return id.String(), nil
}

// parseSPIFFE parses the ID of a workload: what [spiffeid.FromString] takes, within the standard's lengths, with a path.
func parseSPIFFE(s string) (spiffeid.ID, error) {
	if len(s) > maxSPIFFEIDBytes {
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID has %d bytes, at most %d are allowed", len(s), maxSPIFFEIDBytes)
	}
	id, err := spiffeid.FromString(s)
	switch {
	case err != nil:
		return spiffeid.ID{}, fmt.Errorf("not a SPIFFE ID such as spiffe://example.org/worker: %w", err)
	case len(id.TrustDomain().Name()) > maxTrustDomainBytes:
		return spiffeid.ID{}, fmt.Errorf("trust domain has %d bytes, at most %d are allowed", len(id.TrustDomain().Name()), maxTrustDomainBytes)
	case id.Path() == "":
		return spiffeid.ID{}, errors.New("SPIFFE ID has no path, it names a whole trust domain: add one, such as /worker")
	}
	return id, nil
}

func dnsIdentity(name string) (string, error) {
	if !validDNSName(name) {
		return "", fmt.Errorf("certificate's DNS SAN %s is not a lower-case host name without wildcard: issue it with one such as worker.example.org", quote(name))
	}
	return dnsPrefix + name, nil
}

func validDNSName(name string) bool {
	return len(name) <= maxDNSNameBytes && dnsPattern.MatchString(name) && !lastIsDigit.MatchString(name)
}

// requireUsage wants the usage listed: a certificate that lists none was made for no end in particular.
func requireUsage(cert *x509.Certificate, usage x509.ExtKeyUsage, name string) error {
	if !slices.Contains(cert.ExtKeyUsage, usage) {
		return fmt.Errorf("certificate does not list the extended key usage %s: issue it with that", name)
	}
	return nil
}

// fitsListener refuses a certificate that no client would take for a listener's, and one whose SPIFFE ID is damaged: to the rules of who vouches
// for whom it would look like one that has none, as other URIs do.
func fitsListener(leaf *x509.Certificate) error {
	if err := requireUsage(leaf, x509.ExtKeyUsageServerAuth, "serverAuth"); err != nil {
		return err
	}
	uris, _, err := alternativeNames(leaf)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(uris, func(uri string) bool { return strings.HasPrefix(strings.ToLower(uri), "spiffe:") }) {
		_, err = Identity(leaf, false)
	}
	return err
}

// quote makes a peer's text fit for a log line.
func quote(s string) string {
	if len(s) > maxQuotedBytes {
		s = strings.ToValidUTF8(s[:maxQuotedBytes], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
