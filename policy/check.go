package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tokenbroker/tokenbroker"
)

const (
	maxIdentityBytes = 2048 // SPIFFE ID, §2.3
	maxLabelBytes    = 256
)

var (
	trustDomain = regexp.MustCompile(`^[a-z0-9._-]+$`)
	dnsPattern  = regexp.MustCompile(`^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)+$`)
	namePart    = regexp.MustCompile(`^[a-z0-9._/*-]+$`)
)

// checkPattern refuses what is wrong in any pattern.
func checkPattern(text string, most int) error {
	switch {
	case text == "":
		return errors.New("pattern is empty")
	case len(text) > most:
		return fmt.Errorf("pattern has %d bytes, at most %d are allowed", len(text), most)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("pattern contains a control character or is not valid UTF-8")
	case strings.TrimSpace(text) != text:
		return fmt.Errorf("pattern %q begins or ends with a blank", text)
	case strings.Contains(text, "***"):
		return fmt.Errorf("pattern %q: write \"*\" (no \"/\") or \"**\" (anything)", text)
	}
	return nil
}

// checkIdentity refuses an identity pattern that does not fix who vouches for the identity.
func checkIdentity(text string) error {
	if err := checkPattern(text, maxIdentityBytes); err != nil {
		return err
	}
	id, spiffe := strings.CutPrefix(text, "spiffe://")
	if !spiffe {
		name, dns := strings.CutPrefix(text, "dns:")
		if !dns || !dnsPattern.MatchString(name) {
			return fmt.Errorf("identity %q must be spiffe://TRUST-DOMAIN/PATH, or dns: and a lower-case DNS name of two labels or more, "+
				"\"*.\" in front at most", text)
		}
		return nil
	}
	domain, path, _ := strings.Cut(id, "/")
	switch {
	case strings.Contains(domain, "*"):
		return fmt.Errorf("identity %q leaves the trust domain open; write it out, as in spiffe://example.org/job/*", text)
	case !trustDomain.MatchString(domain):
		return fmt.Errorf("identity %q: a trust domain is made of a-z, 0-9, '.', '-' and '_'", text)
	case path == "" || strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.Contains(path, "//") || climbs(path):
		return fmt.Errorf("identity %q must have a path of non-empty segments behind the trust domain, none of them \".\" or \"..\"", text)
	}
	return nil
}

// CheckIdentity refuses what is not the identity of one caller: a SPIFFE ID, or "dns:" and a name, and no pattern.
func CheckIdentity(text string) error {
	if strings.Contains(text, "*") {
		return fmt.Errorf("%q is a pattern; give one identity", text)
	}
	return checkIdentity(text)
}

// checkName refuses a pattern that no name of a credential or OAuth client fits.
func checkName(text string) error {
	if err := checkPattern(text, tokenbroker.MaxNameBytes); err != nil {
		return err
	}
	if !namePart.MatchString(text) || strings.HasPrefix(text, "/") || strings.HasSuffix(text, "/") || strings.Contains(text, "//") || climbs(text) {
		return fmt.Errorf("pattern %q fits no name; names are segments of [a-z0-9][a-z0-9._-]* joined by '/'", text)
	}
	return nil
}

// checkScope refuses a pattern that no scope fits. A star is a legal scope character, so this also checks the literals.
func checkScope(text string) error {
	if err := checkPattern(text, tokenbroker.MaxScopeBytes); err != nil {
		return err
	}
	return tokenbroker.ValidateScopes([]string{text})
}

func checkSubject(text string) error { return checkPattern(text, tokenbroker.MaxSubjectBytes) }

func checkAudience(text string) error { return checkPattern(text, tokenbroker.MaxAudienceBytes) }

// checkLabel refuses a name of a rule or a case that logs and tables could not show in a line.
func checkLabel(text string) error {
	switch {
	case len(text) > maxLabelBytes:
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(text), maxLabelBytes)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("contains a control character")
	}
	return nil
}
