package brokertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// Forge has a CA sign what [mtls.CA.Issue] refuses to: spoil may change the template of a client's certificate that is good for an hour.
// It returns the certificate and its key in PEM.
func Forge(t testing.TB, ca *mtls.CA, spiffeID string, spoil func(*x509.Certificate)) (cert, key []byte) {
	t.Helper()
	signer, err := ca.KeyPEM()
	if err != nil {
		t.Fatalf("brokertest: key of the CA: %v", err)
	}
	parent, err := tls.X509KeyPair(ca.CertPEM(), signer)
	if err != nil {
		t.Fatalf("brokertest: pair of the CA: %v", err)
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("brokertest: generate a key: %v", err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{RawURI(spiffeID)},
		BasicConstraintsValid: true}
	spoil(tmpl)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent.Leaf, own.Public(), parent.PrivateKey)
	keyDER, keyErr := x509.MarshalPKCS8PrivateKey(own)
	if err := errors.Join(err, keyErr); err != nil {
		t.Fatalf("brokertest: forge a certificate: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// RawURI is a URI that goes into a certificate as it stands, however wrong. [url.Parse] would not let all of them through.
func RawURI(text string) *url.URL {
	scheme, rest, _ := strings.Cut(text, ":")
	return &url.URL{Scheme: scheme, Opaque: rest}
}
