package audit

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// appendFields appends the fields, each with a comma before it.
func (r *Record) appendFields(b []byte, now time.Time) []byte {
	b = append(b, `,"time":"`...)
	b = now.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = appendText(b, "kind", string(r.Kind))
	b = appendText(b, "request_id", r.RequestID)
	if r.prepared != nil {
		b = append(b, r.prepared...)
	} else {
		b = r.appendSubject(b)
	}
	return appendUint(b, "latency_us", uint64(max(0, r.Latency.Microseconds())))
}

// Prepare encodes what the record is about, once for many writes. From then on only Time, Kind, RequestID and Latency of the record, and of
// copies of it, may be changed.
func (r *Record) Prepare() { r.prepared = r.appendSubject([]byte{}) }

// appendSubject appends the fields that are the same for each record of the same question and answer.
func (r *Record) appendSubject(b []byte) []byte {
	b = appendText(b, "identity", r.Identity)
	b = appendText(b, "peer", r.Peer)
	b = appendText(b, "cert", r.CertFingerprint)
	b = appendText(b, "cert_serial", r.CertSerial)
	b = appendText(b, "action", r.Action)
	b = appendText(b, "credential", r.Credential)
	b = appendText(b, "oauth_client", r.OAuthClient)
	b = appendTexts(b, "scopes_asked", r.ScopesAsked)
	b = appendTexts(b, "scopes_granted", r.ScopesGranted)
	b = appendText(b, "subject", r.Subject)
	b = appendText(b, "audience", r.Audience)
	b = appendText(b, "policy", r.PolicyRevision)
	b = appendText(b, "rule", r.Rule)
	b = appendText(b, "mode", r.Mode)
	b = appendText(b, "decision", string(r.Decision))
	b = appendText(b, "reason", r.Reason)
	b = appendText(b, "code", r.Code)
	b = appendText(b, "provider", r.Provider)
	b = appendUint(b, "generation", uint64(r.Generation))
	b = appendText(b, "token_mac", r.TokenMAC)
	b = appendTime(b, "expire_time", r.Expiry)
	b = appendUint(b, "serial", r.Serial)
	b = appendUints(b, "streams", r.Streams)
	return appendUint(b, "count", r.Count)
}

func appendKey(b []byte, key string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

func appendText(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(appendKey(b, key), s)
}

func appendTime(b []byte, key string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = append(appendKey(b, key), '"')
	b = t.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

func appendTexts(b []byte, key string, list []string) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(appendKey(b, key), '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

func appendUint(b []byte, key string, n uint64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendUint(appendKey(b, key), n, 10)
}

func appendUints(b []byte, key string, list []uint64) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(appendKey(b, key), '[')
	for i, n := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, n, 10)
	}
	return append(b, ']')
}

// appendString appends s as a JSON string (RFC 8259 §7), as encoding/json does without HTML escapes. A line feed never gets
// through, or a caller could write lines of its own.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0 // start of what needs no escape
	for i := 0; i < len(s); {
		if c := s[i]; c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if esc := escape(r, size); esc != 0 {
			b = append(b, s[from:i]...)
			b = appendEscape(b, r, esc)
			from = i + size
		}
		i += size
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

// escape returns the letter of the escape that r needs, 0 for none.
func escape(r rune, size int) byte {
	switch r {
	case '"', '\\':
		return byte(r)
	case '\b':
		return 'b'
	case '\f':
		return 'f'
	case '\n':
		return 'n'
	case '\r':
		return 'r'
	case '\t':
		return 't'
	case '\u2028', '\u2029':
		return 'u'
	}
	if r < ' ' || r == utf8.RuneError && size == 1 {
		return 'u'
	}
	return 0
}

func appendEscape(b []byte, r rune, letter byte) []byte {
	b = append(b, '\\', letter)
	if letter != 'u' {
		return b
	}
	const hex = "0123456789abcdef"
	return append(b, hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}
