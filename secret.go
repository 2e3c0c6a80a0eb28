package tokenbroker

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"unique"
)

const redacted = "[redacted]"

// Secret is a string that must not be printed: an access token, a refresh token, a client secret. Every fmt verb, slog,
// JSON and text encoders write "[redacted]" in its place. Only [Secret.Reveal] gives the value. Secrets of equal value are equal.
//
// What is kept is masked: fmt passes over the methods of a field that is not exported, and printers that walk by reflection follow every
// pointer, so whatever they reach must not be the value. The mask is no encryption: whoever reads the memory of the process finds its
// key there too.
type Secret struct{ masked unique.Handle[string] }

// masks is of this process alone.
var masks = newMasker() //nolint:gochecknoglobals // made once and never changed

// masker masks with a stream of its own for each value, so that one value that is known gives nothing of another.
type masker struct {
	block cipher.Block
	key   []byte
}

func newMasker() masker {
	keys := make([]byte, 64)
	_, _ = rand.Read(keys) // never fails: crypto/rand ends the process first
	block, err := aes.NewCipher(keys[:32])
	if err != nil {
		panic(err) // a key of 32 bytes is one
	}
	return masker{block, keys[32:]}
}

// mask hides a value. Equal values give equal results.
func (m masker) mask(value string) string {
	sum := hmac.New(sha256.New, m.key)
	_, _ = sum.Write([]byte(value))
	masked := make([]byte, aes.BlockSize, aes.BlockSize+len(value))
	copy(masked, sum.Sum(nil))
	masked = append(masked, value...)
	cipher.NewCTR(m.block, masked[:aes.BlockSize]).XORKeyStream(masked[aes.BlockSize:], masked[aes.BlockSize:])
	return string(masked)
}

// reveal undoes mask.
func (m masker) reveal(masked string) string {
	value := []byte(masked[aes.BlockSize:])
	cipher.NewCTR(m.block, []byte(masked[:aes.BlockSize])).XORKeyStream(value, value)
	return string(value)
}

// NewSecret wraps value. An empty value is no secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{unique.Make(masks.mask(value))}
}

// Reveal returns the value. Callers pass it on to the wire or to a sealed record and nowhere else.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return masks.reveal(s.masked.Value())
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

// Equal reports whether both hold the same value. It is ==, for packages that look for a method.
func (s Secret) Equal(o Secret) bool { return s == o }

// String implements fmt.Stringer.
func (s Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return redacted }

// Format implements fmt.Formatter, so that no verb reaches the value.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler, which JSON, YAML and XML encoders use.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
