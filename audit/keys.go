package audit

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Sizes of a key as it is stored: number, Unix time at which it was made, key.
const (
	keyHead = 4 + 8
	keySize = keyHead + sha256.Size
	macSize = 18 // bytes of a MAC that are kept: 144 bits, and no padding in base64
)

// Keys are the audit keys. With them the trail names a token without holding it: by HMAC-SHA256 under the newest key. Older keys stay,
// so that a token that was found can be looked up in records of any age. Any number of goroutines may use them.
type Keys struct {
	rotating sync.Mutex // held while a new key is being kept

	mu   sync.RWMutex
	list []macKey // oldest first; changed under both
}

// macKey is one key.
type macKey struct {
	number uint32
	made   time.Time
	key    []byte
}

// NewKeys opens the keys that Rotate gave to its keep; an empty list is a beginning, and needs a Rotate before the first MAC. The list is
// secret: whoever has it can test a guess of a token against the trail.
func NewKeys(list [][]byte) (*Keys, error) {
	k := &Keys{}
	for i, b := range list {
		if len(b) != keySize {
			return nil, fmt.Errorf("audit key %d has %d bytes, not %d", i+1, len(b), keySize)
		}
		m := macKey{binary.BigEndian.Uint32(b), time.Unix(int64(binary.BigEndian.Uint64(b[4:])), 0).UTC(), append([]byte(nil), b[keyHead:]...)}
		if n := len(k.list); m.number == 0 || n > 0 && m.number <= k.list[n-1].number {
			return nil, fmt.Errorf("audit key %d has the number %d, which is out of order", i+1, m.number)
		}
		k.list = append(k.list, m)
	}
	return k, nil
}

// Rotate makes a new key. keep is given the whole list, to store it sealed; only when it returned nil the key is used, so no record
// names a key that a crash could lose.
func (k *Keys) Rotate(now time.Time, keep func(list [][]byte) error) error {
	k.rotating.Lock()
	defer k.rotating.Unlock()
	m := macKey{1, now.UTC(), make([]byte, sha256.Size)}
	if n := len(k.list); n > 0 {
		m.number = k.list[n-1].number + 1
	}
	_, _ = rand.Read(m.key) // never fails
	list := slices.Concat(k.list, []macKey{m})
	all := make([][]byte, 0, len(list))
	for _, m := range list {
		all = append(all, m.encode())
	}
	if err := keep(all); err != nil {
		return fmt.Errorf("keep the new audit key: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = list
	return nil
}

// encode is the key as it is stored.
func (m macKey) encode() []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, keySize), m.number)
	b = binary.BigEndian.AppendUint64(b, uint64(m.made.Unix()))
	return append(b, m.key...)
}

// Due reports whether the newest key was made in an earlier quarter of the year (UTC), or there is none.
func (k *Keys) Due(now time.Time) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.list) == 0 || quarter(k.list[len(k.list)-1].made) < quarter(now.UTC())
}

func quarter(t time.Time) int { return t.Year()*4 + int(t.Month()-1)/3 }

// MAC names a token under the newest key, as in "k3:" and 24 characters of base64url. It is "" when there is no key or no token. It costs
// about a microsecond: whoever hands out one token often computes it once.
func (k *Keys) MAC(token string) string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if len(k.list) == 0 || token == "" {
		return ""
	}
	return k.list[len(k.list)-1].mac(token)
}

// MACs names a token under every key, the newest first: what it may be called in the trail.
func (k *Keys) MACs(token string) []string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if token == "" {
		return nil
	}
	all := make([]string, 0, len(k.list))
	for _, m := range slices.Backward(k.list) {
		all = append(all, m.mac(token))
	}
	return all
}

func (m macKey) mac(token string) string {
	h := hmac.New(sha256.New, m.key)
	h.Write([]byte(token))
	b := append(strconv.AppendUint([]byte("k"), uint64(m.number), 10), ':')
	return string(base64.RawURLEncoding.AppendEncode(b, h.Sum(nil)[:macSize]))
}

// Format keeps the keys out of whatever prints them.
func (k *Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// MarshalJSON refuses: keys are stored by Rotate alone.
func (k *Keys) MarshalJSON() ([]byte, error) { return nil, errors.New("audit keys are not for JSON") }
