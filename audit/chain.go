package audit

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Hash is the SHA-256 of a line. The zero value stands in front of the first line of a trail.
type Hash [sha256.Size]byte

// String returns the hash as lines have it, in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether nothing is in front.
func (h Hash) IsZero() bool { return h == Hash{} }

// How a line of version 2 begins and ends. Both are of a fixed form, so that a chain can be checked without a parser of JSON:
//
//	{"v":2,"trail":"…","seq":N, … ,"prev":"<64 hex>","hash":"<64 hex>"}
//	└────────────── what is hashed ──────────────┘
const (
	lineHead  = `{"v":2,"trail":"`
	seqKey    = `","seq":`
	oldHead   = `{"v":1,"seq":` // version 1 had no chain
	prevKey   = `,"prev":"`
	hashKey   = `","hash":"`
	lineEnd   = `"}`
	hexLen    = 2 * sha256.Size
	maxTrail  = 64                                            // bytes of the id of a trail
	afterPrev = hexLen + len(hashKey) + hexLen + len(lineEnd) // bytes from the digits of prev to the end of a line
)

// link is what chains a line to its neighbours.
type link struct {
	trail string
	seq   uint64
	prev  Hash // of the line before
}

// newTrail returns the id of a new trail, 66 random bits.
func newTrail() string {
	b := make([]byte, 9)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)[:11]
}

// frame makes a line of encoded fields, without the line feed, and returns its hash.
func frame(b []byte, l link, fields []byte) ([]byte, Hash) {
	start := len(b)
	b = append(b, lineHead...)
	b = append(b, l.trail...)
	b = append(b, seqKey...)
	b = strconv.AppendUint(b, l.seq, 10)
	b = append(b, fields...)
	b = append(b, prevKey...)
	b = hex.AppendEncode(b, l.prev[:])
	b = append(b, '"')
	sum := sha256.Sum256(b[start:])
	b = append(b, hashKey[1:]...)
	b = hex.AppendEncode(b, sum[:])
	return append(b, lineEnd...), sum
}

// parseLink reads what chains a line of version 2, and the hash that it states. It does not look at what is between.
func parseLink(line []byte) (l link, stated Hash, ok bool) {
	l.trail, l.seq, ok = parseHead(line)
	if !ok || l.trail == "" || len(line) < len(lineHead)+len(prevKey)+afterPrev {
		return link{}, Hash{}, false
	}
	tail := line[len(line)-afterPrev-len(prevKey):]
	rest, hasPrev := bytes.CutPrefix(tail, []byte(prevKey))
	hashed := rest[:0]
	if hasPrev {
		hashed, hasPrev = bytes.CutPrefix(rest[hexLen:], []byte(hashKey))
	}
	if !hasPrev || string(hashed[hexLen:]) != lineEnd {
		return link{}, Hash{}, false
	}
	return l, stated, parseHash(&l.prev, rest[:hexLen]) && parseHash(&stated, hashed[:hexLen])
}

// parseHead reads trail and number of a line, which may be unfinished behind them; of version 1 the trail is empty.
func parseHead(line []byte) (trail string, seq uint64, ok bool) {
	rest, old := bytes.CutPrefix(line, []byte(oldHead))
	if !old {
		if rest, ok = bytes.CutPrefix(line, []byte(lineHead)); !ok {
			return "", 0, false
		}
		id, _, found := bytes.Cut(rest[:min(len(rest), maxTrail+len(seqKey))], []byte(seqKey))
		if !found || !validTrail(id) {
			return "", 0, false
		}
		trail, rest = string(id), rest[len(id)+len(seqKey):]
	}
	digits, _, whole := bytes.Cut(rest[:min(len(rest), 24)], []byte{','})
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	return trail, seq, whole && err == nil && digits[0] != '+' && (digits[0] != '0' || len(digits) == 1)
}

// validTrail reports whether id is in the alphabet of trails.
func validTrail(id []byte) bool {
	for _, c := range id {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return len(id) > 0
}

// parseHash reads a hash in lower-case hex: there is one way alone to write a line.
func parseHash(h *Hash, digits []byte) bool {
	for _, c := range digits {
		if 'A' <= c && c <= 'F' {
			return false
		}
	}
	n, err := hex.Decode(h[:], digits)
	return n == len(h) && err == nil && len(digits) == hexLen
}

// unfinished is what a record says of the unfinished line above it, so that nobody can put another line in its place.
func unfinished(line []byte) string {
	return fmt.Sprintf("%d bytes, SHA-256 %x", len(line), sha256.Sum256(line))
}

// hashOf computes the hash of a line of version 2.
func hashOf(line []byte) Hash {
	return sha256.Sum256(line[:max(0, len(line)-len(lineEnd)-hexLen-len(hashKey)+1)])
}
