package mtls

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"
)

const maxFileBytes = 4 << 20 // a bundle of a thousand CAs is under 2 MiB

// material is what one reading of the files gave. It never changes, so that a handshake which holds one sees no mixture.
type material struct {
	digest [sha256.Size]byte // of the files' bytes
	cert   tls.Certificate   // with Leaf
	chain  []*x509.Certificate
	trust  *trust // who vouches for peers; nil = a Public's, which has none
	from   string // where cert is from, for an error
	vital  string // where the CAs are from that we can't do without, for an error
}

// check reports whether the material is of use at now.
func (m *material) check(now time.Time) error {
	if err := m.checkChain(now); err != nil {
		return err
	}
	if err := m.trust.check(now); err != nil {
		return fmt.Errorf("%s: %w", m.vital, err)
	}
	return nil
}

// checkChain is check without the CA bundle.
func (m *material) checkChain(now time.Time) error {
	for i, c := range m.chain {
		if now.Before(c.NotBefore) {
			return fmt.Errorf("%s: certificate %d of the chain is not valid before %s: check the clock, or wait", m.from, i+1, stamp(c.NotBefore))
		}
		if !now.Before(c.NotAfter) {
			return fmt.Errorf("%s: certificate %d of the chain ended at %s: replace it", m.from, i+1, stamp(c.NotAfter))
		}
	}
	return nil
}

func validAt(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && now.Before(c.NotAfter)
}

// readFile reads one of the files, with a limit. A private file may be open to its owner alone.
func readFile(what, path string, private bool) ([]byte, error) {
	if path == "" {
		return nil, fmt.Errorf("%s: no path is set", what)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s %q is a directory: name a file", what, path)
	}
	if mode := info.Mode().Perm(); private && mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s %q has mode %04o, others than its owner have access: chmod 600 it", what, path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s %q has more than %d bytes: name a PEM file", what, path, maxFileBytes)
	}
	return data, nil
}

// parseChain parses a leaf certificate and the intermediates that follow it.
func parseChain(data []byte) ([]*x509.Certificate, error) {
	chain, err := parseCertificates(data)
	if err != nil {
		return nil, err
	}
	return chain, refuseSigner(chain[0])
}

// parseBundle parses CA certificates. A leaf among them would be trusted as it stands, whoever issued it.
func parseBundle(data []byte) ([]*x509.Certificate, error) {
	cas, err := parseCertificates(data)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(cas, func(c *x509.Certificate) bool { return !c.IsCA }); i >= 0 {
		return nil, fmt.Errorf("certificate %d is not a CA certificate: name the certificate of the CA, not one that it issued", i+1)
	}
	return cas, nil
}

// parseCertificates parses a PEM file of certificates, at least one. Unlike [x509.CertPool.AppendCertsFromPEM] it skips nothing:
// a file cut short must not pass for a smaller one.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	begun := bytes.Count(data, []byte("-----BEGIN "))
	if begun == 0 {
		return nil, errors.New("holds no PEM block: write certificates as -----BEGIN CERTIFICATE-----")
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %d is no certificate (its type is %s): keep certificates only", len(certs)+1, quote(block.Type))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) != begun {
		return nil, fmt.Errorf("%d of %d PEM blocks are damaged or cut short: write the file again, and replace it by rename", begun-len(certs), begun)
	}
	return certs, nil
}

func keyPair(certPEM, keyPEM []byte) (tls.Certificate, error) {
	if bytes.Contains(keyPEM, []byte("ENCRYPTED")) {
		return tls.Certificate{}, errors.New("the key is encrypted: decrypt it (openssl pkey) and protect the file instead")
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%w: write the certificate and its key together", err)
	}
	return pair, nil
}

// digest tells contents apart, whichever file a byte is in.
func digest(files ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, data := range files {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(data))))
		h.Write(data)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
