package policy

import "strings"

// Pattern is a pattern as policies have them, for others who filter by name. The zero Pattern fits only "".
type Pattern struct{ compiled pattern }

// ParsePattern reads a pattern: "*" stands for any run without "/", "**" for any run, everything else for itself.
func ParsePattern(text string) (Pattern, error) {
	if err := checkPattern(text, maxIdentityBytes); err != nil {
		return Pattern{}, err
	}
	return Pattern{compile(text)}, nil
}

// Match reports whether the whole of s fits the pattern. It takes time in proportion to s.
func (p Pattern) Match(s string) bool { return p.compiled.match(s) }

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.compiled.text }

// pattern is a compiled pattern: a literal start, then wildcards each followed by the literal up to the next one.
type pattern struct {
	text  string
	start string
	parts []part
}

// part is one wildcard and the literal behind it. Only the last literal of a pattern may be empty.
type part struct {
	deep    bool // "**": also over "/"
	literal string
}

// compile splits text at its wildcards. It takes any text; checks of what a pattern may say are in check.go.
func compile(text string) pattern {
	start, rest, wild := strings.Cut(text, "*")
	p := pattern{text: text, start: start}
	for wild {
		run := len(rest) - len(strings.TrimLeft(rest, "*")) // stars after the one that Cut took
		var pt part
		pt.deep = run > 0
		pt.literal, rest, wild = strings.Cut(rest[run:], "*")
		p.parts = append(p.parts, pt)
	}
	return p
}

// exact reports whether the pattern has no wildcard.
func (p *pattern) exact() bool { return len(p.parts) == 0 }

// match reports whether the whole of s fits the pattern.
//
// It walks the parts and keeps, for the text matched so far, every end that could matter. Of two ends in the same segment
// (the text between two slashes) the earlier one can do all that the later one can, so there is at most one end per segment,
// and a "**" looks only at the first of all. Each part so reads the text about once, and nothing is tried twice.
func (p *pattern) match(s string) bool {
	rest, ok := strings.CutPrefix(s, p.start)
	if !ok || p.exact() {
		return ok && rest == ""
	}
	var room [16]int
	ends := append(room[:0], 0)
	last := len(p.parts) - 1
	for i, pt := range p.parts[:last] {
		if pt.deep {
			ends = deepEnds(ends[:1], rest, pt.literal, p.parts[i+1].deep)
		} else {
			ends = shallowEnds(ends, rest, pt.literal)
		}
		if len(ends) == 0 {
			return false
		}
	}
	return p.parts[last].closes(rest, ends)
}

// closes reports whether the last part leads from one of the ends to the end of s.
func (pt part) closes(s string, ends []int) bool {
	stop := len(s) - len(pt.literal)
	if !strings.HasSuffix(s, pt.literal) {
		return false
	}
	for _, e := range ends {
		if e <= stop && (pt.deep || strings.IndexByte(s[e:stop], '/') < 0) {
			return true
		}
	}
	return false
}

// deepEnds replaces the one end by those that a "**" and the literal lead to: the first per segment, or the first of all.
func deepEnds(ends []int, s, literal string, firstOnly bool) []int {
	at := ends[0]
	ends = ends[:0]
	for at <= len(s) {
		i := strings.Index(s[at:], literal)
		if i < 0 {
			return ends
		}
		end := at + i + len(literal)
		ends = append(ends, end)
		slash := strings.IndexByte(s[end:], '/')
		if firstOnly || slash < 0 {
			return ends
		}
		at = max(at+i+1, end+slash+1-len(literal)) // the next end has to lie behind that slash
	}
	return ends
}

// shallowEnds replaces each end by the one that a "*" and the literal lead to. The results stay sorted, and no two share a
// segment: a literal without slash ends where it began, and all ends move on by the slashes of the literal alike.
func shallowEnds(ends []int, s, literal string) []int {
	kept := ends[:0]
	for _, e := range ends {
		limit := len(s)
		if slash := strings.IndexByte(s[e:], '/'); slash >= 0 {
			limit = min(len(s), e+slash+len(literal)) // the literal has to begin at that slash at the latest
		}
		if i := strings.Index(s[e:limit], literal); i >= 0 {
			kept = append(kept, e+i+len(literal))
		}
	}
	return kept
}
