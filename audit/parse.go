package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// ParseEntry reads a line of the trail, of version 1 or 2, with or without its line feed. It is strict about the form (one object, each
// field once and of its type) and lenient about fields that it does not know: a newer broker may write more. It does not check the hash.
func ParseEntry(line []byte) (Entry, error) {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	if !utf8.Valid(line) {
		return Entry{}, errors.New("audit line is not UTF-8")
	}
	p := parser{rest: line, seen: map[string]bool{}}
	if err := p.object(); err != nil {
		return Entry{}, fmt.Errorf("audit line, byte %d: %w", len(line)-len(p.rest)+1, err)
	}
	return p.entry, p.complete()
}

// parser reads one line.
type parser struct {
	rest  []byte
	seen  map[string]bool
	v     uint64
	entry Entry
	point Checkpoint
}

// complete says what is missing in a line, or should not be there.
func (p *parser) complete() error {
	switch {
	case p.v != 1 && p.v != 2:
		return fmt.Errorf("audit line has version %d; this program reads 1 and 2", p.v)
	case !p.seen["seq"] || !p.seen["time"]:
		return errors.New("audit line has no seq or no time")
	case p.v == 2 && (!p.seen["trail"] || !p.seen["prev"] || !p.seen["hash"]):
		return errors.New("audit line has no trail, prev or hash")
	}
	if p.entry.Kind == KindCheckpoint {
		p.entry.Checkpoint = &p.point
	}
	return nil
}

// object reads the line.
func (p *parser) object() error {
	if !p.next('{') {
		return errors.New("it begins with no object")
	}
	for n := 0; !p.next('}'); n++ {
		if n > 0 && !p.next(',') {
			return errors.New("a comma is missing")
		}
		key, err := p.text()
		if err != nil {
			return err
		}
		if p.seen[key] || !p.next(':') {
			return fmt.Errorf("field %q comes twice, or has no value", key)
		}
		p.seen[key] = true
		if err := p.field(key); err != nil {
			return err
		}
	}
	if len(p.rest) > 0 {
		return errors.New("there is more behind its end")
	}
	return nil
}

// next takes a byte if it comes next.
func (p *parser) next(c byte) bool {
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// field reads the value of a field.
func (p *parser) field(key string) error {
	r := &p.entry.Record
	if to := r.textField(key); to != nil {
		return p.textTo(to)
	}
	switch key {
	case "v":
		return p.uintTo(&p.v)
	case "seq":
		return p.uintTo(&p.entry.Seq)
	case "serial":
		return p.uintTo(&r.Serial)
	case "count":
		return p.uintTo(&r.Count)
	case "generation":
		return p.uintTo((*uint64)(&r.Generation))
	case "latency_us":
		return p.latency(&r.Latency)
	case "streams":
		return p.list(func() error { r.Streams = append(r.Streams, 0); return p.uintTo(&r.Streams[len(r.Streams)-1]) })
	case "scopes_asked":
		return p.texts(&r.ScopesAsked)
	case "scopes_granted":
		return p.texts(&r.ScopesGranted)
	case "time":
		return p.time(&r.Time)
	case "expire_time":
		return p.time(&r.Expiry)
	}
	return p.chained(key)
}

// textField returns where the text of a field goes; nil if it is none of text.
func (r *Record) textField(key string) *string {
	switch key {
	case "kind":
		return (*string)(&r.Kind)
	case "request_id":
		return &r.RequestID
	case "identity":
		return &r.Identity
	case "peer":
		return &r.Peer
	case "cert":
		return &r.CertFingerprint
	case "cert_serial":
		return &r.CertSerial
	case "action":
		return &r.Action
	case "credential":
		return &r.Credential
	case "oauth_client":
		return &r.OAuthClient
	case "subject":
		return &r.Subject
	case "audience":
		return &r.Audience
	case "policy":
		return &r.PolicyRevision
	case "rule":
		return &r.Rule
	case "mode":
		return &r.Mode
	case "decision":
		return (*string)(&r.Decision)
	case "reason":
		return &r.Reason
	case "code":
		return &r.Code
	case "provider":
		return &r.Provider
	case "token_mac":
		return &r.TokenMAC
	}
	return nil
}

// chained reads a field that the log itself adds, or skips one that is unknown.
func (p *parser) chained(key string) error {
	switch key {
	case "trail":
		if err := p.textTo(&p.entry.Trail); err != nil || !validTrail([]byte(p.entry.Trail)) {
			return errors.New("trail is no id")
		}
		return nil
	case "prev":
		return p.hash(&p.entry.Prev)
	case "hash":
		return p.hash(&p.entry.Hash)
	case "head":
		return p.hash(&p.point.Head)
	case "store":
		return p.uintTo(&p.point.Store)
	case "key":
		return p.textTo(&p.point.Key)
	case "sig":
		s, err := p.text()
		if err == nil {
			p.point.Signature, err = base64.RawURLEncoding.Strict().DecodeString(s)
		}
		return err
	}
	return p.skip()
}

// skip skips a value of a field that is unknown: any value without white space.
func (p *parser) skip() error {
	dec := json.NewDecoder(bytes.NewReader(p.rest))
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return errors.New("a value is no JSON")
	}
	p.rest = p.rest[dec.InputOffset():]
	return nil
}

// text reads a string.
func (p *parser) text() (string, error) {
	if len(p.rest) == 0 || p.rest[0] != '"' {
		return "", errors.New("a string is missing")
	}
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			s := string(p.rest[1:i])
			p.rest = p.rest[i+1:]
			return s, nil
		case c < ' ':
			return "", errors.New("a string holds a control character")
		case c == '\\':
			return p.escaped(i)
		}
	}
	return "", errors.New("a string does not end")
}

// escaped reads a string with escapes, the first of them at i.
func (p *parser) escaped(i int) (string, error) {
	for ; i < len(p.rest) && p.rest[i] != '"'; i++ {
		if p.rest[i] == '\\' {
			i++
		}
	}
	if i >= len(p.rest) {
		return "", errors.New("a string does not end")
	}
	var s string
	if err := json.Unmarshal(p.rest[:i+1], &s); err != nil {
		return "", errors.New("a string is malformed")
	}
	p.rest = p.rest[i+1:]
	return s, nil
}

func (p *parser) textTo(to *string) (err error) {
	*to, err = p.text()
	return err
}

func (p *parser) uintTo(to *uint64) error {
	n := 0
	for n < len(p.rest) && '0' <= p.rest[n] && p.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(string(p.rest[:n]), 10, 64)
	if err != nil || n > 1 && p.rest[0] == '0' {
		return errors.New("a number is malformed")
	}
	*to, p.rest = v, p.rest[n:]
	return nil
}

func (p *parser) latency(to *time.Duration) error {
	var us uint64
	if err := p.uintTo(&us); err != nil {
		return err
	}
	const most = uint64(1<<63-1) / uint64(time.Microsecond)
	*to = time.Duration(min(us, most)) * time.Microsecond
	return nil
}

// list reads a list of at least one item.
func (p *parser) list(item func() error) error {
	if !p.next('[') {
		return errors.New("a list is missing")
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if p.next(']') {
			return nil
		}
		if !p.next(',') {
			return errors.New("a comma is missing")
		}
	}
}

func (p *parser) texts(to *[]string) error {
	return p.list(func() error {
		s, err := p.text()
		*to = append(*to, s)
		return err
	})
}

func (p *parser) time(to *time.Time) error {
	s, err := p.text()
	if err != nil {
		return err
	}
	if *to, err = time.Parse(time.RFC3339Nano, s); err != nil {
		return errors.New("a time is malformed")
	}
	*to = to.UTC()
	return nil
}

func (p *parser) hash(to *Hash) error {
	s, err := p.text()
	if err != nil || !parseHash(to, []byte(s)) {
		return errors.New("a hash is malformed")
	}
	return nil
}
