package sandbox

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"time"
)

// AddServiceAccountKey makes a key for a service account, as Google's console does, and returns the JSON file that comes of
// it. The base is where the server is reached, e.g. "https://127.0.0.1:8443"; its token_uri is /{issuer}/token there.
func (s *Server) AddServiceAccountKey(issuer, email, base string) []byte {
	i := s.mustIssuer(issuer)
	key := newSigningKey()
	der, err := x509.MarshalPKCS8PrivateKey(key.private)
	if err != nil {
		panic("sandbox: encode a key: " + err.Error()) // never, for RSA
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	account := i.serviceAccount(email)
	if account == nil {
		panic(fmt.Sprintf("sandbox: issuer %q has no service account %q", issuer, email))
	}
	id := make([]byte, 20)
	_, _ = rand.Read(id) // never fails, as crypto/rand has it
	kid := hex.EncodeToString(id)
	account.Keys = append(account.Keys, Key{ID: kid, Public: &key.private.PublicKey})
	file, err := json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": "sandbox", "private_key_id": kid,
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": email, "client_id": account.ClientID,
		"auth_uri": base + "/" + issuer + "/" + string(EndpointAuthorize), "token_uri": base + "/" + issuer + "/" + string(EndpointToken),
		"universe_domain": "sandbox.test",
	}, "", "  ")
	if err != nil {
		panic("sandbox: encode a key file: " + err.Error()) // never, for strings
	}
	return append(file, '\n')
}

// RemoveServiceAccountKey takes a key away: what it signs is refused with "Invalid JWT Signature.". It reports whether the
// key was there.
func (s *Server) RemoveServiceAccountKey(issuer, email, keyID string) bool {
	return s.changeServiceAccount(issuer, email, func(a *ServiceAccount) bool {
		before := len(a.Keys)
		a.Keys = slices.DeleteFunc(slices.Clone(a.Keys), func(k Key) bool { return k.ID == keyID })
		return len(a.Keys) < before
	})
}

// SetServiceAccount changes what a service account may do, as an administrator does: whether it is disabled, and for which
// scopes it may act as an account (nil = not at all).
func (s *Server) SetServiceAccount(issuer, email string, isDisabled bool, delegated []string) {
	s.changeServiceAccount(issuer, email, func(a *ServiceAccount) bool {
		a.Disabled, a.Delegated = isDisabled, slices.Clone(delegated)
		return true
	})
}

func (s *Server) changeServiceAccount(issuer, email string, change func(*ServiceAccount) bool) bool {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	account := i.serviceAccount(email)
	if account == nil {
		panic(fmt.Sprintf("sandbox: issuer %q has no service account %q", issuer, email))
	}
	return change(account)
}

// SetRotation changes what becomes of an issuer's refresh tokens from now on; grace goes with RotateGrace alone.
func (s *Server) SetRotation(issuer string, rotation Rotation, grace time.Duration) error {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	changed := i.Issuer
	changed.Rotation, changed.Grace = rotation, grace
	if err := changed.validate(); err != nil {
		return err
	}
	i.Rotation, i.Grace = rotation, grace // and nothing else: the rest is read without the lock
	return nil
}
