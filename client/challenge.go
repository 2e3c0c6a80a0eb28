package client

import (
	"net/http"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

const (
	invalidToken      = "invalid_token"
	insufficientScope = "insufficient_scope"
	mostChallenge     = 16 << 10 // bytes of a WWW-Authenticate field that are looked at
)

// challenge is one of WWW-Authenticate (RFC 9110 §11.6.1).
type challenge struct {
	scheme string            // in lower case
	params map[string]string // names in lower case; the first of a name counts
}

// refusalIn is the challenge that tells of a token: the first Bearer one with an error (RFC 6750 §3), else the first of any scheme with one.
func refusalIn(h http.Header) challenge {
	all := challenges(h.Values("WWW-Authenticate"))
	for _, fits := range []func(challenge) bool{
		func(c challenge) bool { return c.scheme == "bearer" && c.params["error"] != "" },
		func(c challenge) bool { return c.params["error"] != "" },
	} {
		if i := slices.IndexFunc(all, fits); i >= 0 {
			return all[i]
		}
	}
	return challenge{}
}

// lacksScope reports whether a reply says that a token's scopes do not suffice, and which those are that it has not.
func lacksScope(resp *http.Response, tok tokenbroker.Token) (missing []string, ok bool) {
	if resp.StatusCode != http.StatusForbidden {
		return nil, false
	}
	c := refusalIn(resp.Header)
	if c.params["error"] != insufficientScope {
		return nil, false
	}
	for s := range strings.FieldsSeq(c.params["scope"]) {
		if len(missing) < tokenbroker.MaxScopes && tokenbroker.ValidateScopes([]string{s}) == nil &&
			!slices.Contains(tok.Scopes, s) && !slices.Contains(missing, s) {
			missing = append(missing, s)
		}
	}
	return missing, true
}

// challenges reads the fields of WWW-Authenticate. What is malformed ends its field; what came before it counts.
func challenges(fields []string) []challenge {
	var all []challenge
	for _, f := range fields {
		all = append(all, (&scanner{rest: f[:min(len(f), mostChallenge)]}).challenges()...)
	}
	return all
}

// scanner reads one field from its beginning on.
type scanner struct{ rest string }

// challenges reads a comma-separated list in which a comma ends a parameter or a challenge; only what follows tells which.
func (s *scanner) challenges() []challenge {
	var all []challenge
	for {
		s.skip(" \t,")
		name := s.while(isToken)
		if name == "" {
			return all
		}
		if len(all) > 0 && s.assigned() {
			if !s.param(all[len(all)-1], name) {
				return all
			}
			continue
		}
		all = append(all, challenge{scheme: strings.ToLower(name), params: map[string]string{}})
		s.token68()
	}
}

// assigned reads "=" with the white space that may be around it.
func (s *scanner) assigned() bool {
	after, ok := strings.CutPrefix(strings.TrimLeft(s.rest, " \t"), "=")
	if ok {
		s.rest = strings.TrimLeft(after, " \t")
	}
	return ok
}

// param reads the value of a parameter.
func (s *scanner) param(c challenge, name string) bool {
	value, ok := s.value()
	name = strings.ToLower(name)
	if _, twice := c.params[name]; ok && !twice {
		c.params[name] = value
	}
	return ok
}

func (s *scanner) value() (string, bool) {
	if !strings.HasPrefix(s.rest, `"`) {
		v := s.while(isToken)
		return v, v != "" && s.delimited()
	}
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return b.String(), s.delimited()
		case c == '\\' && i+1 < len(s.rest):
			i++
			b.WriteByte(s.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false // it does not end
}

// token68 reads what may follow a scheme in place of parameters, as with Negotiate.
func (s *scanner) token68() {
	ahead := scanner{rest: strings.TrimLeft(s.rest, " ")}
	if len(ahead.rest) == len(s.rest) || ahead.while(isToken68) == "" {
		return
	}
	ahead.skip("=")
	if ahead.ended() {
		s.rest = ahead.rest
	}
}

// delimited reports whether a value is over. Servers are seen that leave out the comma.
func (s *scanner) delimited() bool { return s.rest == "" || strings.IndexByte(", \t", s.rest[0]) >= 0 }

// ended reports whether an item of the list is over.
func (s *scanner) ended() bool {
	s.skip(" \t")
	return s.rest == "" || s.rest[0] == ','
}

func (s *scanner) skip(cutset string) { s.rest = strings.TrimLeft(s.rest, cutset) }

func (s *scanner) while(is func(byte) bool) string {
	n := 0
	for n < len(s.rest) && is(s.rest[n]) {
		n++
	}
	v := s.rest[:n]
	s.rest = s.rest[n:]
	return v
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isToken(c byte) bool { return isAlnum(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 }

func isToken68(c byte) bool { return isAlnum(c) || strings.IndexByte("-._~+/", c) >= 0 }
