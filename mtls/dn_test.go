package mtls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
)

// attr is an attribute with its type dotted, and a string of the kind that a tag says.
func attr(t *testing.T, oid string, tag int, value string) pkix.AttributeTypeAndValue {
	t.Helper()
	id, err := x509.ParseOID(oid)
	if err != nil {
		t.Fatal(err)
	}
	var dotted asn1.ObjectIdentifier
	der, err := id.MarshalBinary()
	if err == nil {
		_, err = asn1.Unmarshal(append([]byte{asn1.TagOID, byte(len(der))}, der...), &dotted)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pkix.AttributeTypeAndValue{Type: dotted, Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)}}
}

// issuedBy is what a listener sees of a worker whose certificate a CA of the given name issued, and the listener's Source.
func issuedBy(t *testing.T, name pkix.RDNSequence) (*mtls.Source, tls.ConnectionState) {
	t.Helper()
	subject, err := asn1.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := url.Parse(workerID)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), RawSubject: subject, NotBefore: begin, NotAfter: end, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(0x4f3a), NotBefore: begin, NotAfter: end, URIs: []*url.URL{id},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca = parse(t, pemOf(caDER))
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf = parse(t, pemOf(leafDER))
	return source(t, broker(t, newCA(t, "dev")), pemOf(caDER)),
		tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, ca}}}
}

// TestAnIssuerIsWhatOpenSSLWrites denies by the issuer as openssl x509 -noout -issuer -nameopt RFC2253 (3.0.19) wrote it for each name.
func TestAnIssuerIsWhatOpenSSLWrites(t *testing.T) {
	const cn, sn, serial, street, o, ou, postal = "2.5.4.3", "2.5.4.4", "2.5.4.5", "2.5.4.9", "2.5.4.10", "2.5.4.11", "2.5.4.17"
	const dc, uid, email = "0.9.2342.19200300.100.1.25", "0.9.2342.19200300.100.1.1", "1.2.840.113549.1.9.1"
	const utf, printable, t61, ia5, bmp = asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagT61String, asn1.TagIA5String, asn1.TagBMPString
	type rdn = pkix.RelativeDistinguishedNameSET
	at := func(oid string, tag int, value string) pkix.AttributeTypeAndValue { return attr(t, oid, tag, value) }
	for line, name := range map[string]pkix.RDNSequence{
		`O=Acme,CN=Acme CA`:                         {rdn{at(cn, printable, "Acme CA")}, rdn{at(o, printable, "Acme")}},
		`CN=M\C3\BCller \"CA\",O=Acme\, Inc.`:       {rdn{at(o, utf, "Acme, Inc.")}, rdn{at(cn, utf, `Müller "CA"`)}},
		`CN=CA,DC=acme,DC=example`:                  {rdn{at(dc, ia5, "example")}, rdn{at(dc, ia5, "acme")}, rdn{at(cn, utf, "CA")}},
		`emailAddress=ca@acme.example,CN=CA`:        {rdn{at(cn, utf, "CA")}, rdn{at(email, ia5, "ca@acme.example")}},
		`CN=CA,OU=b,OU=a`:                           {rdn{at(ou, utf, "a")}, rdn{at(ou, utf, "b")}, rdn{at(cn, utf, "CA")}},
		`CN=CA+OU=x,O=Acme`:                         {rdn{at(o, utf, "Acme")}, rdn{at(cn, utf, "CA"), at(ou, utf, "x")}},
		`OU=x+CN=CA,O=Acme`:                         {rdn{at(o, utf, "Acme")}, rdn{at(cn, utf, "CA"), at(ou, utf, "x")}},
		`serialNumber=77,postalCode=1000,street=W`:  {rdn{at(street, utf, "W")}, rdn{at(postal, utf, "1000")}, rdn{at(serial, printable, "77")}},
		`CN=\ # CA \<1\>\;=\+\\\ `:                  {rdn{at(cn, utf, ` # CA <1>;=+\ `)}},
		`CN=\#CA`:                                   {rdn{at(cn, utf, "#CA")}},
		`O=M\C3\BC,CN=M\C3\BC`:                      {rdn{at(cn, bmp, "\x00M\x00\xfc")}, rdn{at(o, t61, "M\xfc")}},
		`CN=CA\091,1.3.6.1.4.1.99999.1=#13036F776E`: {rdn{at("1.3.6.1.4.1.99999.1", printable, "own")}, rdn{at(cn, utf, "CA\t1")}},
		`CN=,UID=u,SN=s,organizationIdentifier=X,jurisdictionC=DE`: {rdn{at("1.3.6.1.4.1.311.60.2.1.3", printable, "DE")},
			rdn{at("2.5.4.97", utf, "X")}, rdn{at(sn, utf, "s")}, rdn{at(uid, utf, "u")}, rdn{at(cn, utf, "")}},
	} {
		s, state := issuedBy(t, name)
		d := denyList(t, "# of one CA\n4f3a issuer:"+line+"\n")
		if _, err := s.Gate(mtls.ServerOptions{Deny: d}).Peer(state); !errors.Is(err, mtls.ErrDenied) || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: got %v, want it denied", line, err)
		}
		d = denyList(t, "4f3a issuer:CN=CA,"+line+"\n4f3a issuer:O=Acme\n")
		if _, err := s.Gate(mtls.ServerOptions{Deny: d}).Peer(state); err != nil {
			t.Errorf("%s: another issuer's line: got %v, want it let in", line, err)
		}
	}
}

// The text of a Peer's issuer can be put into a line as it is.
func TestAPeersIssuerFitsALine(t *testing.T) {
	s, state := issuedBy(t, pkix.RDNSequence{{attr(t, "2.5.4.10", asn1.TagUTF8String, `Müller, "A"`)}, {attr(t, "2.5.4.3", asn1.TagUTF8String, "A #1\n")}})
	p, err := s.Gate(mtls.ServerOptions{}).Peer(state)
	if want := `CN=A \#1\0A,O=Müller\, \"A\"`; err != nil || p.Issuer != want {
		t.Fatalf("got %q, %v, want %q", p.Issuer, err, want)
	}
	if err := denyList(t, "4f3a issuer:"+p.Issuer+"\n").Check(p); !errors.Is(err, mtls.ErrDenied) {
		t.Errorf("got %v, want it denied", err)
	}
}
