package policy

import (
	"slices"
	"strings"
)

// index finds the rules that have a pattern for a text, e.g. an identity.
type index struct {
	exact map[string][]int  // text → rules that name it without a wildcard
	under map[string][]wild // start of a text up to and with a "/", or "" → patterns that begin so
}

// wild is a pattern with a wildcard, and the rule it stands in.
type wild struct {
	rule    int
	pattern *pattern
}

func newIndex() *index {
	return &index{exact: map[string][]int{}, under: map[string][]wild{}}
}

// add puts rule number i into the index under each of its patterns, which have to stay where they are.
func (ix *index) add(i int, patterns []pattern) {
	for k := range patterns {
		p := &patterns[k]
		if p.exact() {
			ix.exact[p.text] = append(ix.exact[p.text], i)
			continue
		}
		under := p.start[:strings.LastIndexByte(p.start, '/')+1]
		ix.under[under] = append(ix.under[under], wild{i, p})
	}
}

// each calls visit for rules with a pattern that fits s until it returns false. A rule may come more than once, and they come in no
// order.
func (ix *index) each(s string, visit func(int) bool) {
	for _, i := range ix.exact[s] {
		if !visit(i) {
			return
		}
	}
	for end := 0; end >= 0; end = nextSlash(s, end) {
		for _, w := range ix.under[s[:end]] {
			if w.pattern.match(s) && !visit(w.rule) {
				return
			}
		}
	}
}

// find returns the rules with a pattern that fits s, in order, each once.
func (ix *index) find(s string) []int {
	var found []int
	ix.each(s, func(i int) bool { found = append(found, i); return true })
	slices.Sort(found)
	return slices.Compact(found)
}

// wider returns the rules with a pattern that provably includes p. A rule may come more than once, and they come in no order.
func (ix *index) wider(p *pattern) []int {
	if p.exact() {
		return ix.find(p.text)
	}
	var found []int
	for end := 0; end >= 0; end = nextSlash(p.start, end) {
		for _, w := range ix.under[p.start[:end]] {
			if w.pattern.includes(p) {
				found = append(found, w.rule)
			}
		}
	}
	return found
}

// nextSlash returns the index behind the first "/" of s at or after from, or -1.
func nextSlash(s string, from int) int {
	i := strings.IndexByte(s[from:], '/')
	if i < 0 {
		return -1
	}
	return from + i + 1
}
