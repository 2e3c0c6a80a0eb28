package tokenbroker

import (
	"fmt"
	"log/slog"
	"unique"
)

const redacted = "[redacted]"

// Secret is a string that must not be printed: an access token, a refresh token, a client secret. Every fmt verb, slog,
// JSON and text encoders write "[redacted]" in its place. Only [Secret.Reveal] gives the value. Secrets of equal value are equal.
//
// The value lies behind a pointer: fmt passes over the methods of a field when a verb does not fit the struct that holds it, and
// then prints whatever it reaches.
type Secret struct{ value unique.Handle[string] }

// NewSecret wraps value. An empty value is no secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{unique.Make(value)}
}

// Reveal returns the value. Callers pass it on to the wire or to a sealed record and nowhere else.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.value.Value()
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
