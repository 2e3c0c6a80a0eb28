package mtls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"time"
)

const (
	backdate    = time.Minute    // certificates begin this long ago, for peers whose clock is behind
	defaultLife = 24 * time.Hour // of a certificate whose template names no end
)

// CA is a certificate authority for development and tests, with an ECDSA P-256 key. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Template says what [CA.Issue] shall certify: at least one name and at least one end.
type Template struct {
	SPIFFEID  string    // the URI SAN; "" = none
	DNSNames  []string  // none is fine
	IPs       []net.IP  // none is fine
	Server    bool      // for the listening end: extended key usage serverAuth
	Client    bool      // for the dialling end: extended key usage clientAuth
	NotBefore time.Time // zero = a minute ago
	NotAfter  time.Time // zero = in 24 h, or when the CA ends if that is earlier
}

// NewCA makes a self-signed CA that is valid from a minute ago, for life from now on. With domains to permit it carries
// critical name constraints (RFC 5280 §4.2.1.10), so that trusting it gives little away: SPIFFE IDs with a permitted
// domain as trust domain or parent of it, DNS names in a permitted domain or localhost, and loopback addresses.
func NewCA(name string, life time.Duration, permit ...string) (*CA, error) {
	if name == "" || life <= 0 {
		return nil, errors.New("new CA: give a name and a positive life")
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it issues leaves only
	}
	if err := constrain(tmpl, permit); err != nil {
		return nil, fmt.Errorf("new CA: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("new CA: %w", err)
	}
	cert, err := sign(tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("new CA: %w", err)
	}
	return &CA{cert: cert, key: key}, nil
}

// LoadCA takes up a CA from what [CA.CertPEM] and [CA.KeyPEM] gave. It refuses one that is not valid now.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	pair, err := keyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	cert := pair.Leaf
	key, ok := pair.PrivateKey.(crypto.Signer)
	switch {
	case !ok || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, errors.New("load CA: the certificate may not sign others: give a CA certificate and its key")
	case !validAt(cert, time.Now()):
		return nil, fmt.Errorf("load CA: valid from %s to %s only: check the clock, or make a new CA", stamp(cert.NotBefore), stamp(cert.NotAfter))
	}
	return &CA{cert: cert, key: key}, nil
}

// CertPEM returns the CA's certificate, for the bundle of those who shall trust it.
func (ca *CA) CertPEM() []byte { return certPEM(ca.cert) }

// KeyPEM returns the CA's private key (PKCS #8). It goes into a file of mode 0600 and nowhere else.
func (ca *CA) KeyPEM() ([]byte, error) { return keyPEM(ca.key) }

// Issue certifies a new ECDSA P-256 key and returns the certificate and the key (PKCS #8). It refuses names that the CA
// is not permitted to certify; it does not refuse a validity that is past or that the CA does not live to see.
func (ca *CA) Issue(t Template) (cert, key []byte, err error) {
	tmpl, err := t.certificate(ca.cert.NotAfter)
	if err != nil {
		return nil, nil, fmt.Errorf("issue: %w", err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("issue: %w", err)
	}
	leaf, err := sign(tmpl, ca.cert, private.Public(), ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("issue: %w", err)
	}
	if err := ca.verify(*leaf); err != nil {
		return nil, nil, fmt.Errorf("issue: %w: ask for names that the CA permits", err)
	}
	key, err = keyPEM(private)
	return certPEM(leaf), key, err
}

// verify checks all but the dates, which leaf, a copy, borrows from the CA: tests ask for certificates that have ended.
func (ca *CA) verify(leaf x509.Certificate) error {
	leaf.NotBefore, leaf.NotAfter = ca.cert.NotBefore, ca.cert.NotAfter
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: ca.cert.NotBefore, KeyUsages: leaf.ExtKeyUsage})
	return err
}

// certificate turns the template into what x509 wants, for a CA that ends at end.
func (t Template) certificate(end time.Time) (*x509.Certificate, error) {
	cert := &x509.Certificate{
		NotBefore:             t.NotBefore,
		NotAfter:              t.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		DNSNames:              t.DNSNames,
		IPAddresses:           t.IPs,
	}
	if t.Server {
		cert.ExtKeyUsage = append(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if t.Client {
		cert.ExtKeyUsage = append(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if t.SPIFFEID != "" {
		id, err := parseSPIFFE(t.SPIFFEID)
		if err != nil {
			return nil, err
		}
		cert.URIs = []*url.URL{id.URL()}
	}
	if t.NotBefore.IsZero() {
		cert.NotBefore = time.Now().Add(-backdate)
	}
	if t.NotAfter.IsZero() {
		cert.NotAfter = earlier(time.Now().Add(defaultLife), end)
	}
	switch {
	case len(cert.ExtKeyUsage) == 0:
		return nil, errors.New("the template is for neither end: set Server, Client or both")
	case len(cert.URIs)+len(cert.DNSNames)+len(cert.IPAddresses) == 0:
		return nil, errors.New("the template has no name: set SPIFFEID, DNSNames or IPs")
	case !cert.NotBefore.Before(cert.NotAfter):
		return nil, fmt.Errorf("the certificate would end at %s, before it begins: set a later NotAfter", stamp(cert.NotAfter))
	}
	return cert, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// constrain permits only the domains and what never leaves the host.
func constrain(tmpl *x509.Certificate, permit []string) error {
	for _, domain := range permit {
		if !validDNSName(domain) {
			return fmt.Errorf("permitted domain %s is not a lower-case host name such as example.org", quote(domain))
		}
	}
	if len(permit) == 0 {
		return nil
	}
	tmpl.PermittedDNSDomainsCritical = true // of the whole extension, despite its name
	tmpl.PermittedURIDomains = permit
	tmpl.PermittedDNSDomains = append([]string{"localhost"}, permit...)
	tmpl.PermittedIPRanges = []*net.IPNet{
		{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
		{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
	}
	return nil
}

// sign makes a certificate with a random serial number, which x509 draws where the template has none.
func sign(tmpl, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func certPEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// WriteNew writes a file that must not exist yet, durably; what is there is never overwritten (errors.Is fs.ErrExist).
// perm is 0600 for a key and 0644 for a certificate. On an error no file of ours is left.
func WriteNew(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: it is never overwritten, move it away first", err)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
