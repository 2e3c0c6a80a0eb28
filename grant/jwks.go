package grant

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/tokenbroker/tokenbroker"
)

const (
	maxJWKS   = 512 << 10
	maxKeys   = 100
	keysLast  = 10 * time.Minute
	keysAgain = time.Minute // least time between fetches that unknown keys cause
)

// keyCache holds a provider's public keys for a while.
type keyCache struct {
	mu      sync.Mutex // never held while a request is under way
	from    string
	keys    []jose.JSONWebKey
	fetched time.Time
}

// held returns the keys that were fetched from there, if they are young enough.
func (k *keyCache) held(from string, most time.Duration) ([]jose.JSONWebKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.from != from || k.fetched.IsZero() || time.Since(k.fetched) >= most {
		return nil, false
	}
	return k.keys, true
}

func (k *keyCache) keep(from string, keys []jose.JSONWebKey, fetched time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.from, k.keys, k.fetched = from, keys, fetched
}

// keysFor returns the provider's keys that may have signed with the key id; "" = any. An unknown id has the keys fetched anew, at most
// once a minute.
func (e *endpoint) keysFor(ctx context.Context, id, alg string) ([]jose.JSONWebKey, error) {
	from := e.profile.JWKSURI
	all, ok := e.keys.held(from, keysLast)
	if found := matching(all, id, alg); ok && len(found) > 0 {
		return found, nil
	}
	if all, ok := e.keys.held(from, keysAgain); ok {
		return matching(all, id, alg), nil
	}
	fetched := time.Now()
	a, err := e.get(ctx, from, tokenbroker.Secret{}, maxJWKS)
	if err != nil {
		return nil, err
	}
	keys, code := keysOf(a)
	if code != "" {
		return nil, &tokenbroker.Failure{Class: tokenbroker.ClassTransient, Code: code, HTTPStatus: a.status, Sent: true}
	}
	e.keys.keep(from, keys, fetched)
	return matching(keys, id, alg), nil
}

func matching(keys []jose.JSONWebKey, id, alg string) (found []jose.JSONWebKey) {
	for _, k := range keys {
		if (id == "" || k.KeyID == id) && (k.Algorithm == "" || k.Algorithm == alg) {
			found = append(found, k)
		}
	}
	return found
}

// keysOf reads a JWK set (RFC 7517 §5). What is no public signature key that we know is left out.
func keysOf(a answer) ([]jose.JSONWebKey, string) {
	switch {
	case a.status != http.StatusOK:
		return nil, httpCode(a.status)
	case a.fault != "":
		return nil, a.fault
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(a.body, &set); err != nil || len(set.Keys) > maxKeys {
		return nil, "bad_jwks"
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) == nil && k.IsPublic() && k.Valid() && (k.Use == "" || k.Use == "sig") {
			keys = append(keys, k)
		}
	}
	return keys, ""
}
