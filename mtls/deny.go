package mtls

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	maxSerialBytes  = 20 // RFC 5280 §4.1.2.2
	maxDenyProblems = 10 // that are told at once
	fingerprintMark = "sha256:"
	issuerMark      = "issuer:"
)

// ErrDenied says that a certificate is on the deny list.
var ErrDenied = errors.New("certificate is on the deny list")

var (
	hexSerial      = regexp.MustCompile(`^[0-9A-Fa-f]{1,2}(:[0-9A-Fa-f]{2})*$|^[0-9A-Fa-f]{1,42}$`)
	hexFingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)
	issuerLine     = regexp.MustCompile(`^[ \t]*([^ \t#][^ \t]*)[ \t]+` + issuerMark + `(.+)$`)
)

// DenyList refuses certificates before their time: those whose key is lost, say. It is a text file, looked at again while the broker runs.
// Each line is one of
//
//	4f3a                        the serial number, in hex with or without colons, of whoever issued it
//	4f3a example.org            the same, where the identity is of this trust domain
//	4f3a issuer:CN=CA,O=Acme    the same, where this is the issuer, as openssl x509 -nameopt RFC2253 -issuer has it (RFC 4514)
//	sha256:5d4c…                the SHA-256 of one certificate, in 64 lower-case digits
//
// or empty; "#" at the beginning of a line or after a blank starts a comment, but none can follow an issuer. Only a CA's serial numbers are unique, so where there are
// several CAs a line should name one, or a fingerprint. A file that has anything else in it is refused as a whole. So is one that ends
// within a line, or has no line at all: it may be half written; a comment makes a list that denies nobody.
//
// A nil DenyList denies nobody. It is safe for concurrent use.
type DenyList struct {
	path     string
	reload   sync.Mutex // one Reload at a time
	current  atomic.Pointer[denied]
	revision atomic.Uint64
	problem  atomic.Pointer[error]
}

// denied is one reading of the file.
type denied struct {
	digest [sha256.Size]byte
	lines  map[denial]int // → the line that says so
}

// denial is what a line says: a serial number, and of whom, or a fingerprint.
type denial struct{ serial, of string }

// OpenDenyList reads a deny list. It refuses what [DenyList.Reload] refuses.
func OpenDenyList(path string) (*DenyList, error) {
	d := &DenyList{path: path}
	if _, err := d.Reload(); err != nil {
		return nil, err
	}
	return d, nil
}

// Reload reads the file again, and reports whether it says something new. On an error what was in force stays in force.
func (d *DenyList) Reload() (changed bool, err error) {
	d.reload.Lock()
	defer d.reload.Unlock()
	defer func() { d.problem.Store(&err) }()
	data, err := readFile("deny list", d.path, false)
	if err != nil {
		return false, err
	}
	old, sum := d.current.Load(), sha256.Sum256(data)
	if old != nil && old.digest == sum {
		return false, nil
	}
	lines, err := parseDenyList(data)
	if err != nil {
		return false, fmt.Errorf("deny list %q: %w", d.path, err)
	}
	d.current.Store(&denied{digest: sum, lines: lines})
	d.revision.Add(1)
	return true, nil
}

// Watch is [Source.Watch] for the list.
func (d *DenyList) Watch(ctx context.Context, interval time.Duration, notify func(error)) {
	watch(ctx, interval, nil, d.Reload, notify)
}

// Err says what is wrong with the file; nil if it is what is in force.
func (d *DenyList) Err() error {
	if p := d.problem.Load(); p != nil {
		return *p
	}
	return nil
}

// Revision rises each time that the list changes.
func (d *DenyList) Revision() uint64 {
	if d == nil {
		return 0
	}
	return d.revision.Load()
}

// Len is how many certificates are denied.
func (d *DenyList) Len() int { return len(d.current.Load().lines) }

// Check returns an error, which is [ErrDenied], if the list denies a peer's certificate.
func (d *DenyList) Check(p Peer) error {
	if d == nil {
		return nil
	}
	lines := d.current.Load().lines
	if len(lines) == 0 {
		return nil
	}
	for _, k := range [...]denial{{p.Serial, ""}, {p.Serial, trustDomain(p.Identity)}, {p.Serial, issuerMark + p.Issuer}, {fingerprintMark + p.Fingerprint, ""}} {
		if line, ok := lines[k]; ok {
			return fmt.Errorf("%w: line %d, serial %s of %s", ErrDenied, line, p.Serial, quote(p.Identity))
		}
	}
	return nil
}

func parseDenyList(data []byte) (map[denial]int, error) {
	if len(data) == 0 {
		return nil, errors.New("it is empty: write a comment into it if nobody is to be denied")
	}
	if !bytes.HasSuffix(data, []byte("\n")) {
		return nil, errors.New("its last line has no end: it may be half written; replace it by rename, with a newline at the end")
	}
	lines := map[denial]int{}
	var problems []error
	for i, text := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		k, err := parseDenial(text)
		switch {
		case err != nil && len(problems) == maxDenyProblems:
			return nil, errors.Join(append(problems, errors.New("and more"))...)
		case err != nil:
			problems = append(problems, fmt.Errorf("line %d: %w", i+1, err))
		case k != denial{}:
			lines[k] = i + 1
		}
	}
	return lines, errors.Join(problems...)
}

// parseDenial reads a line; what is zero denies nobody.
func parseDenial(text string) (denial, error) {
	text = strings.TrimSuffix(text, "\r")
	if m := issuerLine.FindStringSubmatch(text); m != nil {
		return parseIssuer(m[1], m[2])
	}
	if i := strings.Index(" "+strings.ReplaceAll(text, "\t", " "), " #"); i >= 0 {
		text = text[:i]
	}
	what, of, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(text, "\t", " ")), " ")
	of = strings.TrimSpace(of)
	if what == "" {
		return denial{}, nil
	}
	if sum, ok := strings.CutPrefix(what, fingerprintMark); ok {
		if !hexFingerprint.MatchString(sum) || of != "" {
			return denial{}, errors.New("after sha256: come 64 lower-case hex digits, and nothing else")
		}
		return denial{serial: what}, nil
	}
	serial, err := parseSerial(what)
	if err != nil {
		return denial{}, err
	}
	if of == "" {
		return denial{serial: serial}, nil
	}
	if td, err := spiffeid.TrustDomainFromString(of); err != nil || td.Name() != of {
		return denial{}, fmt.Errorf("%s is neither a trust domain, such as example.org, nor issuer: and a name", quote(of))
	}
	return denial{serial, of}, nil
}

// parseIssuer reads a line that names the issuer.
func parseIssuer(what, name string) (denial, error) {
	serial, err := parseSerial(what)
	if err != nil {
		return denial{}, err
	}
	issuer, err := parseName(name)
	if err != nil {
		return denial{}, err
	}
	return denial{serial, issuerMark + issuer}, nil
}

func parseSerial(text string) (string, error) {
	n, ok := new(big.Int).SetString(strings.ReplaceAll(text, ":", ""), 16)
	if !hexSerial.MatchString(text) || !ok || n.Sign() == 0 || len(n.Bytes()) > maxSerialBytes {
		return "", fmt.Errorf("%s is not a serial number in hex", quote(text))
	}
	return n.Text(16), nil
}
