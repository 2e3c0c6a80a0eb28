package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Files names the PEM files of a [Source]. Cert and Key are required, and one of CA and Domains. Replace files by rename, so that nobody
// reads half a file.
type Files struct {
	Cert string // a leaf certificate, then the intermediates that lead to its CA
	Key  string // the leaf's private key, not encrypted; open to its owner alone (mode 0600 or 0400)
	// CA holds CA certificates that peers are verified against; they need not include the leaf's own. For a listener they vouch for DNS
	// names, and for the identities of the leaf's own trust domain if Domains has no file for that. If the leaf has no SPIFFE ID and
	// Domains is empty, they vouch for every SPIFFE ID. For a client they vouch for the server that it expects. "" = none.
	CA string
	// Domains holds the CA certificates of trust domains: name, such as example.org → file. They vouch for identities of that trust domain
	// alone, so no CA may be in two of the files, nor in one of them and in CA while that vouches for the leaf's own. nil = none.
	Domains map[string]string
	// Listens says that the certificate is a listener's. Then it has to list the usage serverAuth, and its SPIFFE ID, if it has one, has to be
	// whole; and one without an ID is not taken up if CA would vouch for every SPIFFE ID by it, which it did not before.
	Listens bool
}

// contents is what files hold, unparsed.
type contents struct {
	cert, key, ca []byte
	domains       map[string][]byte // trust domain → bundle
}

// read reads the files, those of a certificate only if own.
func (f Files) read(own bool) (contents, error) {
	c := contents{domains: map[string][]byte{}}
	var errs []error
	read := func(what, path string, private bool) []byte {
		data, err := readFile(what, path, private)
		errs = append(errs, err)
		return data
	}
	if own {
		c.cert = read("certificate file", f.Cert, false)
		c.key = read("key file", f.Key, true)
	}
	if f.CA != "" || own && len(f.Domains) == 0 {
		c.ca = read("CA file", f.CA, false)
	}
	for _, domain := range slices.Sorted(maps.Keys(f.Domains)) {
		if td, err := spiffeid.TrustDomainFromString(domain); err != nil || td.Name() != domain || len(domain) > maxTrustDomainBytes {
			errs = append(errs, fmt.Errorf("%s is not the name of a trust domain, such as example.org", quote(domain)))
		}
		c.domains[domain] = read("bundle of "+quote(domain), f.Domains[domain], false)
	}
	return c, errors.Join(errs...)
}

func (c contents) digest() [sha256.Size]byte {
	all := [][]byte{c.cert, c.key, c.ca}
	for _, domain := range slices.Sorted(maps.Keys(c.domains)) {
		all = append(all, []byte(domain), c.domains[domain])
	}
	return digest(all...)
}

// bundles parses the CA certificates.
func (f Files) bundles(c contents) (ca []*x509.Certificate, domains map[string][]*x509.Certificate, err error) {
	var errs []error
	parse := func(what, path string, data []byte) []*x509.Certificate {
		cas, err := parseBundle(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", what, path, err))
		}
		return cas
	}
	if f.CA != "" {
		ca = parse("CA file", f.CA, c.ca)
	}
	domains = map[string][]*x509.Certificate{}
	for _, domain := range slices.Sorted(maps.Keys(f.Domains)) {
		domains[domain] = parse("bundle of "+quote(domain), f.Domains[domain], c.domains[domain])
	}
	return ca, domains, errors.Join(append(errs, shared("", nil, domains))...)
}

// load reads the files. If they hold what old was made of, it returns old.
func (f Files) load(old *material) (*material, error) {
	c, err := f.read(true)
	if err != nil {
		return nil, err
	}
	sum := c.digest()
	if old != nil && old.digest == sum {
		return old, nil
	}
	chain, certErr := parseChain(c.cert)
	if certErr != nil {
		certErr = fmt.Errorf("certificate file %q: %w", f.Cert, certErr)
	}
	ca, domains, caErr := f.bundles(c)
	if err := errors.Join(certErr, caErr); err != nil {
		return nil, err
	}
	pair, err := keyPair(c.cert, c.key)
	if err != nil {
		err = fmt.Errorf("key file %q with certificate file %q: %w", f.Key, f.Cert, err)
	}
	if err := errors.Join(f.fits(chain[0]), err); err != nil {
		return nil, err
	}
	trust, err := newTrust(ownDomain(chain[0]), ca, domains)
	if err != nil {
		return nil, err
	}
	return &material{digest: sum, cert: pair, chain: chain, trust: trust,
		from: fmt.Sprintf("certificate file %q", f.Cert), vital: f.vital(trust.own)}, nil
}

// fits is whether a leaf certificate is of use to whoever the files are for.
func (f Files) fits(leaf *x509.Certificate) error {
	if !f.Listens {
		return nil
	}
	if err := fitsListener(leaf); err != nil {
		return fmt.Errorf("certificate file %q: %w", f.Cert, err)
	}
	return nil
}

// vital names the file that [trust.check] looks at; "" = it is none.
func (f Files) vital(own string) string {
	switch {
	case f.CA != "":
		return fmt.Sprintf("CA file %q", f.CA)
	case f.Domains[own] != "":
		return fmt.Sprintf("bundle of %s %q", quote(own), f.Domains[own])
	}
	return ""
}
