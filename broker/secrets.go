package broker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// maxSecrets bounds the live secrets of one OAuth client.
const maxSecrets = 8

// NewSecret is a secret, key or certificate to add to an OAuth client. The zero value is none.
type NewSecret struct {
	Secret      tokenbroker.Secret
	PrivateKey  tokenbroker.Secret // in place of Secret: PEM, a JWK, or a Google service account key file
	Certificate string             // the chain of PrivateKey in PEM, leaf first
	KeyID       string             // the kid of PrivateKey, if it does not say so itself
	Expiry      time.Time          // when it stops working, if that is known
	RotateAfter time.Duration      // how long from now on it is to be replaced; 0 = no such rule
}

func (n NewSecret) isZero() bool { return n.Secret.IsZero() && n.PrivateKey.IsZero() }

// field is the request field that carries the secret.
func (n NewSecret) field() string {
	if n.PrivateKey.IsZero() {
		return "clientSecret"
	}
	return "privateKey"
}

// check says what is malformed in a secret for a client that authenticates by a method.
func (n NewSecret) check(auth tokenbroker.AuthMethod, now time.Time) error {
	kind := auth.Kind()
	switch {
	case n.isZero() && kind == tokenbroker.KindSecret:
		return tokenbroker.Invalid("clientSecret", errors.New("is required"))
	case n.isZero():
		return tokenbroker.Invalid("privateKey", fmt.Errorf("is required for %s", auth))
	case kind == "":
		return &tokenbroker.Problem{Err: tokenbroker.ErrGrantNotSupported, Detail: "a public client has no secret"}
	case !n.Secret.IsZero() && !n.PrivateKey.IsZero():
		return tokenbroker.Invalid("privateKey", errors.New("can't be given together with clientSecret"))
	case kind != tokenbroker.KindSecret && n.PrivateKey.IsZero():
		return tokenbroker.Invalid("clientSecret", fmt.Errorf("%s takes a privateKey, not a secret", auth))
	case kind == tokenbroker.KindCertificate && n.Certificate == "":
		return tokenbroker.Invalid("certificate", fmt.Errorf("is required for %s", auth))
	case len(n.Secret.Reveal()) > tokenbroker.MaxSecretBytes || len(n.PrivateKey.Reveal()) > tokenbroker.MaxSecretBytes:
		return tokenbroker.Invalid(n.field(), errors.New("is longer than 16 KiB"))
	case !n.Expiry.IsZero() && !n.Expiry.After(now):
		return tokenbroker.Invalid("secretExpireTime", errors.New("has passed"))
	case n.RotateAfter < 0:
		return tokenbroker.Invalid("rotateAfter", errors.New("is negative"))
	}
	return nil
}

// newSecret makes a secret, key or certificate of what an operator brought, and adds it to a client.
func (b *Broker) newSecret(c *tokenbroker.OAuthClient, n NewSecret) error {
	now := time.Now()
	if err := n.check(c.Auth, now); err != nil {
		return err
	}
	s := tokenbroker.ClientSecret{Kind: tokenbroker.KindSecret, Secret: n.Secret, Fingerprint: fingerprint(n.Secret)}
	if !n.PrivateKey.IsZero() {
		var err error
		if s, err = b.parseKey(c, n); err != nil {
			return err
		}
	}
	s.ID, s.Added, s.RotateAfter = rand.Text()[:12], now, n.RotateAfter
	s.Expiry = first(s.Expiry, n.Expiry)
	switch {
	case !s.Expiry.IsZero() && !s.Expiry.After(now):
		return tokenbroker.Invalid("certificate", errors.New("has expired"))
	case slices.ContainsFunc(c.Secrets, func(o tokenbroker.ClientSecret) bool { return same(o, s) }):
		return tokenbroker.Invalid(n.field(), errors.New("the client has this one already"))
	case len(c.Secrets) >= maxSecrets:
		return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, Detail: "retire a secret first"}
	}
	c.Secrets = append(c.Secrets, s)
	return nil
}

// fingerprint tells the secrets of a client apart and serves nothing else: it is a hash under a random salt that nobody keeps, so that
// whoever may see it can't try guesses at a weak secret.
func fingerprint(s tokenbroker.Secret) string {
	sum := sha256.Sum256([]byte(rand.Text() + s.Reveal()))
	return hex.EncodeToString(sum[:6])
}

// same reports whether two secrets are one: of keys, the same public half.
func same(a, b tokenbroker.ClientSecret) bool {
	if b.Kind == tokenbroker.KindSecret {
		return a.Secret == b.Secret
	}
	return a.Kind == b.Kind && a.Fingerprint == b.Fingerprint && a.Certificate == b.Certificate
}

// parseKey reads a private key, and takes over what it says of its client.
func (b *Broker) parseKey(c *tokenbroker.OAuthClient, n NewSecret) (tokenbroker.ClientSecret, error) {
	parsed, err := b.cfg.Judge.ParseKey(tokenbroker.NewKey{Text: n.PrivateKey, Certificate: n.Certificate, KeyID: n.KeyID, Provider: c.Provider})
	if err != nil {
		return parsed.Secret, ofKey(err)
	}
	switch {
	case parsed.ClientID == "":
	case c.ClientID == "":
		c.ClientID = parsed.ClientID
	case c.ClientID != parsed.ClientID:
		return parsed.Secret, tokenbroker.Invalid("privateKey", fmt.Errorf("the key belongs to %s, the OAuth client has the id %s", parsed.ClientID, c.ClientID))
	}
	if parsed.Account != "" {
		c.Account = parsed.Account
	}
	if kind := c.Auth.Kind(); kind != tokenbroker.KindSecret { // else it signs the assertions of a grant, beside the secret that is shown
		parsed.Secret.Kind = kind
	}
	return parsed.Secret, nil
}

// ofKey names the request field that a key came in.
func ofKey(err error) error {
	p, ok := errors.AsType[*tokenbroker.Problem](err)
	switch {
	case !ok:
		return tokenbroker.Invalid("privateKey", err)
	case p.Field == "key":
		named := *p
		named.Field = "privateKey"
		return &named
	}
	return err
}

// AddSecret adds a secret, key or certificate to a confidential client.
func (b *Broker) AddSecret(ctx context.Context, name string, n NewSecret) (tokenbroker.OAuthClient, error) {
	return b.UpdateClient(ctx, name, 0, func(c *tokenbroker.OAuthClient) error { return b.newSecret(c, n) })
}

// RetireSecret removes a secret, but not the last one of a confidential client.
func (b *Broker) RetireSecret(ctx context.Context, name, id string) (tokenbroker.OAuthClient, error) {
	return b.UpdateClient(ctx, name, 0, func(c *tokenbroker.OAuthClient) error {
		i := slices.IndexFunc(c.Secrets, func(s tokenbroker.ClientSecret) bool { return s.ID == id })
		switch {
		case i < 0:
			return &tokenbroker.Problem{Err: tokenbroker.ErrClientNotFound, Field: "secretId", Detail: "it has no secret of that id"}
		case len(c.Secrets) == 1:
			return &tokenbroker.Problem{Err: tokenbroker.ErrInUse, Detail: "it is the last secret; add the new one first"}
		}
		c.Secrets = slices.Delete(c.Secrets, i, i+1)
		return nil
	})
}
