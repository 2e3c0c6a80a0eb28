package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// SeedRefreshToken begins a new family, as if the first account had just consented, and returns its first refresh token.
func (s *Server) SeedRefreshToken(issuer, clientID string, scopes ...string) string {
	i := s.mustIssuer(issuer)
	c := i.mustClient(clientID)
	if !wellFormed(scopes) || !i.supports(scopes) {
		panic(fmt.Sprintf("sandbox: issuer %q does not support the scopes %q", issuer, scopes))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	g := grantee{client: c, scopes: scopes}
	if len(i.Accounts) > 0 {
		g.account = &i.Accounts[0]
	}
	_, token := i.newFamily(g, s.Now())
	return token
}

// RotateSecret makes exactly the given secrets of a client work from now on. Name the old and the new one for an overlap.
func (s *Server) RotateSecret(issuer, clientID string, live ...string) {
	i := s.mustIssuer(issuer)
	c := i.mustClient(clientID)
	if slices.Contains([]AuthMethod{AuthNone, AuthPrivateKeyJWT, AuthTLS, AuthSelfSignedTLS}, c.Auth) || slices.Contains(live, "") {
		panic(fmt.Sprintf("sandbox: client %q has no secrets, or one is empty", clientID))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	c.setSecrets(live)
}

// RevokeToken ends one access or refresh token and nothing else. It reports whether the token was known.
func (s *Server) RevokeToken(token string) bool {
	return s.revoke(token, func(i *issuer, a *access, r *refresh) {
		if a != nil {
			i.endAccess(token, a)
			return
		}
		r.revoked = true
	})
}

// RevokeFamily ends every token that came of the same consent as the given access or refresh token, as when a user
// withdraws it. It reports whether the token was known. A token of client_credentials has no family and goes alone.
func (s *Server) RevokeFamily(token string) bool {
	return s.revoke(token, func(i *issuer, a *access, r *refresh) {
		switch {
		case r != nil:
			i.endFamily(r.family)
		case a.family != nil:
			i.endFamily(a.family)
		default:
			i.endAccess(token, a)
		}
	})
}

func (s *Server) revoke(token string, end func(*issuer, *access, *refresh)) bool {
	for _, i := range s.issuers {
		i.mu.Lock()
		a, r := i.access[token], i.refresh[token]
		if a != nil || r != nil {
			end(i, a, r)
			i.mu.Unlock()
			return true
		}
		i.mu.Unlock()
	}
	return false
}

// Valid reports whether an access token of any issuer is live now.
func (s *Server) Valid(accessToken string) bool {
	for _, i := range s.issuers {
		i.mu.Lock()
		a := i.live(accessToken, s.Now())
		i.mu.Unlock()
		if a != nil {
			return true
		}
	}
	return false
}

// Redemption says how often a refresh token was brought and how often that brought a token.
type Redemption struct {
	Presented int // with the token endpoint's client authenticated
	Redeemed  int // 2 or more only without rotation or within the grace
}

// Redemptions returns the counts of every refresh token that was ever issued, by [Fingerprint]. They are exact.
func (s *Server) Redemptions() map[string]Redemption {
	all := map[string]Redemption{}
	for _, i := range s.issuers {
		i.mu.Lock()
		for token, r := range i.refresh {
			all[Fingerprint(token)] = Redemption{Presented: r.presented, Redeemed: r.redeemed}
		}
		i.mu.Unlock()
	}
	return all
}

// Fingerprint is what stands for a token in the journal: the first 16 hex digits of its SHA-256.
func Fingerprint(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:8])
}
