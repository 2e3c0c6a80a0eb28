package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// trust says which CAs vouch for whom. It never changes.
type trust struct {
	own     string             // the trust domain of our own certificate; "" = it has none
	domains map[string]*bundle // trust domain → its CAs
	names   *bundle            // vouches for DNS names; nil = nobody does
	rest    *bundle            // vouches for every trust domain; nil = nobody does
	union   *x509.CertPool     // all of them
}

// bundle is the CAs of one trust domain.
type bundle struct {
	cas  []*x509.Certificate
	pool *x509.CertPool
	has  map[[sha256.Size]byte]bool // digests of the CAs
}

func newBundle(cas []*x509.Certificate) *bundle {
	b := &bundle{cas: cas, pool: x509.NewCertPool(), has: map[[sha256.Size]byte]bool{}}
	for _, c := range cas {
		b.pool.AddCert(c)
		b.has[sha256.Sum256(c.Raw)] = true
	}
	return b
}

// newTrust lays down who vouches for whom. A bundle of a trust domain vouches for its identities alone. ca vouches for DNS names, and for
// our own trust domain if that has no bundle in domains. Only where nobody names a trust domain, neither our certificate nor a bundle,
// does ca vouch for all. No CA may come to vouch for two trust domains.
func newTrust(own string, ca []*x509.Certificate, domains map[string][]*x509.Certificate) (*trust, error) {
	if err := shared(own, ca, domains); err != nil {
		return nil, err
	}
	t := &trust{own: own, domains: map[string]*bundle{}, union: x509.NewCertPool()}
	for domain, cas := range domains {
		t.domains[domain] = newBundle(cas)
	}
	if len(ca) > 0 {
		t.names = newBundle(ca)
		switch {
		case own == "" && len(domains) == 0:
			t.rest = t.names
		case own != "" && t.domains[own] == nil:
			t.domains[own] = t.names
		}
	}
	for _, c := range t.all() {
		t.union.AddCert(c)
	}
	return t, nil
}

// check reports whether the CAs that we can't do without are valid: those of the CA file, or else of our own trust domain. That the CAs of
// another trust domain have ended is its own affair, and must not keep our new certificate out.
func (t *trust) check(now time.Time) error {
	vital := t.names
	if vital == nil {
		vital = t.domains[t.own]
	}
	if vital != nil && !slices.ContainsFunc(vital.cas, func(c *x509.Certificate) bool { return validAt(c, now) }) {
		return errors.New("no CA certificate of the bundle is valid now: add the current one")
	}
	return nil
}

// client is who vouches for a client's identity.
func (t *trust) client(identity string) (*bundle, error) {
	if strings.HasPrefix(identity, dnsPrefix) {
		if t.names == nil {
			return nil, errors.New("no CA file is set that could vouch for DNS names")
		}
		return t.names, nil
	}
	domain := trustDomain(identity)
	if b := t.domains[domain]; b != nil {
		return b, nil
	}
	if t.rest != nil {
		return t.rest, nil
	}
	return nil, fmt.Errorf("there is no bundle for the trust domain %s", domain)
}

// server is who vouches for the server that a client expects. The CA file of a client is that of its server, whatever domain that is in.
func (t *trust) server(expect string) (*bundle, error) {
	domain := t.own
	if strings.HasPrefix(expect, "spiffe:") {
		domain = trustDomain(expect)
	}
	switch b := t.domains[domain]; {
	case b != nil && (t.names == nil || strings.HasPrefix(expect, "spiffe:")):
		return b, nil
	case t.names != nil:
		return t.names, nil
	}
	return nil, fmt.Errorf("there is no bundle for the trust domain %s", quote(domain))
}

// ending are the chains that end in a CA of the bundle.
func (b *bundle) ending(chains [][]*x509.Certificate) [][]*x509.Certificate {
	var kept [][]*x509.Certificate
	for _, chain := range chains {
		if b.has[sha256.Sum256(chain[len(chain)-1].Raw)] {
			kept = append(kept, chain)
		}
	}
	return kept
}

// verify looks for chains from a peer's certificates to a CA of the bundle.
func (b *bundle) verify(certs []*x509.Certificate, usage x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	return certs[0].Verify(x509.VerifyOptions{Roots: b.pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}})
}

// shared finds a CA that would vouch for more than one trust domain. If our own has no bundle in domains, the CA file is that of ours.
func shared(own string, ca []*x509.Certificate, domains map[string][]*x509.Certificate) error {
	bundles := maps.Clone(domains)
	named := func(domain string) string { return domain }
	if _, ok := domains[own]; !ok && own != "" && len(ca) > 0 {
		bundles[own] = ca
		named = func(domain string) string {
			if domain == own {
				return own + ", our own, which is the CA file,"
			}
			return domain
		}
	}
	of := map[string]string{} // public key → trust domain
	for _, domain := range slices.Sorted(maps.Keys(bundles)) {
		for _, c := range bundles[domain] {
			key := string(c.RawSubjectPublicKeyInfo)
			if other, ok := of[key]; ok && other != domain {
				return fmt.Errorf("the CA %s is in the bundles of both %s and %s: it could vouch for either, and each trust domain needs CAs of its own",
					quote(c.Subject.String()), named(other), named(domain))
			}
			of[key] = domain
		}
	}
	return nil
}

// trustDomain is the trust domain of an identity; "" if it is no SPIFFE ID.
func trustDomain(identity string) string {
	id, err := spiffeid.FromString(identity)
	if err != nil {
		return ""
	}
	return id.TrustDomain().Name()
}

// ownDomain is the trust domain of our own certificate.
func ownDomain(leaf *x509.Certificate) string {
	id, err := Identity(leaf, false)
	if err != nil {
		return ""
	}
	return trustDomain(id)
}

// Apart returns an error if a CA that vouches for peers of one Source does so for those of the other, too.
func Apart(a, b *Source) error {
	keys := map[string]bool{}
	for _, c := range a.current.Load().trust.all() {
		keys[string(c.RawSubjectPublicKeyInfo)] = true
	}
	for _, c := range b.current.Load().trust.all() {
		if keys[string(c.RawSubjectPublicKeyInfo)] {
			return fmt.Errorf("the CA %s vouches for the peers of both listeners: each needs CAs of its own", quote(c.Subject.String()))
		}
	}
	return nil
}

// all are all CAs.
func (t *trust) all() []*x509.Certificate {
	var cas []*x509.Certificate
	if t.names != nil {
		cas = append(cas, t.names.cas...)
	}
	for _, b := range t.domains {
		cas = append(cas, b.cas...)
	}
	return cas
}

// VouchesForAll reports whether the CA file vouches for every trust domain, since nobody names one.
func (s *Source) VouchesForAll() bool { return s.current.Load().trust.rest != nil }
