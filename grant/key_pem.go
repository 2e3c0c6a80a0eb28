package grant

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	maxChain  = 10
	maxKeyDER = 8 << 10 // an RSA key of 8192 bits has 4.7 KiB; to read a much larger one takes long
	tooLarge  = "the key is too large; make an RSA key of 2048 to 8192 bits, or one on P-256"
)

// refusedPEM says of PEM blocks that are no private key what they are and what to do.
var refusedPEM = map[string]string{
	"ENCRYPTED PRIVATE KEY":   "this key is encrypted; the broker encrypts what it keeps: give it without a passphrase, openssl pkey -in FILE",
	"OPENSSH PRIVATE KEY":     "this is a key in OpenSSH's own form; convert a copy: ssh-keygen -p -m PKCS8 -N '' -f COPY",
	"PUBLIC KEY":              "this is a public key, which the provider gets; give the private key",
	"RSA PUBLIC KEY":          "this is a public key, which the provider gets; give the private key",
	"CERTIFICATE REQUEST":     "this is a certificate request; give the private key that it was made with",
	"NEW CERTIFICATE REQUEST": "this is a certificate request; give the private key that it was made with",
	"PGP PRIVATE KEY BLOCK":   "this is a key of OpenPGP, which can't sign a JWT; make an RSA or EC key: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
}

// readKeyPEM reads the one private key of a PEM text, and the certificates beside it.
func readKeyPEM(text string) (keyFile, error) {
	blocks, err := readPEM(text)
	if err != nil {
		return keyFile{}, err
	}
	var f keyFile
	for _, b := range blocks {
		switch b.Type {
		case "EC PARAMETERS":
			continue
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return keyFile{}, errors.New("a certificate beside the key can't be read; give the key alone, or both anew")
			}
			f.chain = append(f.chain, cert)
			continue
		}
		if f.key != nil {
			return keyFile{}, errors.New("there are two keys; add each on its own")
		}
		if f.key, err = readBlock(b); err != nil {
			return keyFile{}, err
		}
	}
	if f.key == nil {
		return keyFile{}, errors.New("this is a certificate without its private key; give the key, and the certificate with it")
	}
	return f, nil
}

// readBlock reads a private key.
func readBlock(b *pem.Block) (crypto.Signer, error) {
	if strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, errors.New(refusedPEM["ENCRYPTED PRIVATE KEY"])
	}
	if len(b.Bytes) > maxKeyDER {
		return nil, errors.New(tooLarge)
	}
	var (
		key any
		err error
	)
	switch b.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	default:
		if why, ok := refusedPEM[b.Type]; ok {
			return nil, errors.New(why)
		}
		return nil, errors.New("this PEM block is no private key; give one that begins with -----BEGIN PRIVATE KEY-----")
	}
	if err != nil {
		// What the parser says may quote what it read.
		return nil, errors.New("the private key can't be read: it is damaged, too weak, or of a kind other than RSA, EC (P-256, P-384, P-521) and Ed25519; copy the whole file anew")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("this kind of key can't sign; make an RSA, EC or Ed25519 key")
	}
	return signer, nil
}

// readPEM reads all blocks. One that can't be read is an error: half of a paste is worse than none.
func readPEM(text string) ([]*pem.Block, error) {
	text = mendPEM(text)
	var blocks []*pem.Block
	rest := []byte(text)
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		blocks = append(blocks, b)
	}
	if len(blocks) == 0 || len(blocks) != strings.Count(text, "-----BEGIN ") {
		return nil, errors.New("the PEM text is cut off or damaged; copy the whole file, from -----BEGIN to the end of the -----END line")
	}
	return blocks, nil
}

// mendPEM gives a PEM text its line breaks back, which environment variables and web forms turn into "\n" or blanks.
func mendPEM(text string) string {
	text = strings.NewReplacer(`\r`, "", `\n`, "\n", "\r\n", "\n", "\r", "\n").Replace(text)
	var b strings.Builder
	for text != "" {
		_, rest, found := strings.Cut(text, "-----BEGIN ") // text between blocks says nothing
		if !found {
			break
		}
		kind, rest, ok := strings.Cut(rest, "-----")
		body, after, ended := strings.Cut(rest, "-----END "+kind+"-----")
		if !ok || !ended {
			return text // readPEM says what is wrong
		}
		if !strings.Contains(body, ":") { // else it has headers, whose lines count
			body = "\n" + strings.Join(strings.Fields(body), "\n") + "\n"
		}
		fmt.Fprintf(&b, "-----BEGIN %s-----%s-----END %s-----\n", kind, body, kind)
		text = after
	}
	return b.String()
}

// readChain reads a certificate chain.
func readChain(text string) ([]*x509.Certificate, error) {
	blocks, err := readPEM(text)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, b := range blocks {
		if b.Type != "CERTIFICATE" {
			return nil, errors.New("the chain holds something other than certificates; give the certificates alone, the key's own first")
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, errors.New("a certificate can't be read; copy it anew")
		}
		chain = append(chain, cert)
	}
	return chain, nil
}

// checkChain makes sure that the first certificate is the key's, and of today.
func checkChain(chain []*x509.Certificate, key crypto.Signer, now time.Time) error {
	if len(chain) == 0 {
		return nil
	}
	leaf := chain[0]
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case len(chain) > maxChain:
		return fmt.Errorf("the chain has %d certificates, at most %d are allowed", len(chain), maxChain)
	case !ok || !public.Equal(key.Public()):
		return errors.New("the first certificate is not that of this key; give the key's own certificate first, then those that signed it")
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate expired on %s; ask for a new one", leaf.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.DateOnly))
	}
	return nil
}

func writeChain(chain []*x509.Certificate) string {
	var b strings.Builder
	for _, cert := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return b.String()
}
