package policy

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// The tests of patterns are inside the package: match is its own small language, and no caller sees it.

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"google/a", "google/a", true},
		{"google/a", "google/ab", false},
		{"google/a", "xgoogle/a", false},
		{"google/*", "google/", true},
		{"google/*", "google/a/b", false},
		{"google/**", "google/a/b", true},
		{"google/**", "google", false},
		{"**", "", true},
		{"*", "", true},
		{"*@example.org", "ann@example.org", true},
		{"*@example.org", "ann@example.org.evil.example", false},
		{"*/job", "a/b/job", false},
		{"**/job", "a/b/job", true},
		{"a.c", "abc", false},
		{"[a-z]", "b", false},
		{"a?", "ab", false},
		{"**/a*b*c", "x/ab/abc", true},
		{"**a*b/*c", "a/ab/xab/xc", true},
		{"**a/*b*c", "a/b/a/bb/a/xbxc", true},
	} {
		p := compile(tt.pattern)
		if got := p.match(tt.text); got != tt.want {
			t.Errorf("match(%q, %q) = %v, want %v", tt.pattern, tt.text, got, tt.want)
		}
	}
}

// reference translates a pattern to a regular expression.
func reference(text string) *regexp.Regexp {
	s := regexp.QuoteMeta(text)
	for strings.Contains(s, `\*\*\*`) {
		s = strings.ReplaceAll(s, `\*\*\*`, `\*\*`)
	}
	s = strings.ReplaceAll(s, `\*\*`, `(?s:.*)`)
	return regexp.MustCompile(`\A` + strings.ReplaceAll(s, `\*`, `[^/]*`) + `\z`)
}

func FuzzMatch(f *testing.F) {
	f.Add("google/*-a**b", "google/x-a/b")
	f.Add("**a*b/c*d**", "a/ab/cab/cd")
	f.Add("**aa*a/a*a", "aaaa/aaa/aa/a")
	f.Add("*a*a/**/*b", "a/b/aa/b/b")
	f.Add("***", "a/b")
	f.Fuzz(func(t *testing.T, text, s string) {
		// A small alphabet meets more corners than the bytes that a fuzzer comes up with.
		text, s = fold(text[:min(len(text), 40)], "ab/**"), fold(s[:min(len(s), 100)], "ab/")
		p := compile(text)
		if got, want := p.match(s), reference(text).MatchString(s); got != want {
			t.Errorf("match(%q, %q) = %v, want %v", text, s, got, want)
		}
	})
}

// fold maps each byte of s that is not in alphabet onto one that is.
func fold(s, alphabet string) string {
	b := []byte(s)
	for i, c := range b {
		if strings.IndexByte(alphabet, c) < 0 {
			b[i] = alphabet[int(c)%len(alphabet)]
		}
	}
	return string(b)
}

func TestMatchTakesNoLongerOnHostileText(t *testing.T) {
	p := compile("**" + strings.Repeat("a*", 60) + "b")
	deep := compile(strings.Repeat("**a", 60) + "b")
	segments := compile("**" + strings.Repeat("a*/", 60) + "b")
	text := strings.Repeat("a", 2048)
	began := time.Now()
	for range 100 {
		for _, s := range []string{text, strings.Repeat("a/", 1024), strings.Repeat("aa/", 700) + "b"} {
			_, _, _ = p.match(s), deep.match(s), segments.match(s)
		}
	}
	if got, most := time.Since(began), 5*time.Second; got > most { // backtracking would take longer than the sun shines
		t.Errorf("300 matches took %v, want less than %v", got, most)
	}
}

func TestIncludes(t *testing.T) {
	for _, tt := range []struct {
		wide, narrow string
		want         bool
	}{
		{"a/b", "a/b", true},
		{"a/*", "a/b", true},
		{"a/*", "a/b/c", false},
		{"a/*", "a/b*", true},
		{"a/*", "a/*", true},
		{"a/*", "a/*b*", true},
		{"a/*", "a/**", false},
		{"a/*", "a/*/b", false},
		{"a/*", "a/b/*", false},
		{"a/**", "a/*", true},
		{"a/**", "a/b/**/c", true},
		{"a/**", "a*", false},
		{"**", "*/x/**", true},
		{"*", "**", false},
		{"a/*b", "a/cb", true},
		{"a/*b", "a/c*b", false}, // it does, but that is not proved
		{"a", "a*", false},
	} {
		wide, narrow := compile(tt.wide), compile(tt.narrow)
		if got := wide.includes(&narrow); got != tt.want {
			t.Errorf("includes(%q, %q) = %v, want %v", tt.wide, tt.narrow, got, tt.want)
		}
	}
}

func FuzzIncludes(f *testing.F) {
	f.Add("a/*", "a/b*", "a/bab")
	f.Add("**", "a*b/", "ab/")
	f.Add("a**", "ab*", "abba/")
	f.Fuzz(func(t *testing.T, wide, narrow, s string) {
		wide, narrow, s = fold(wide[:min(len(wide), 8)], "a/**"), fold(narrow[:min(len(narrow), 8)], "ab/*"), fold(s[:min(len(s), 12)], "ab/")
		w, n := compile(wide), compile(narrow)
		if w.includes(&n) && n.match(s) && !w.match(s) {
			t.Errorf("%q is said to include %q, and does not fit %q", wide, narrow, s)
		}
	})
}

// TestIncludesIsProved tries all short texts on all pairs of short patterns.
func TestIncludesIsProved(t *testing.T) {
	texts, patterns := allOf("ab/", 5), allOf("a/*", 4)
	pairs := 0
	for _, wide := range patterns {
		for _, narrow := range patterns {
			w, n := compile(wide), compile(narrow)
			if wide == narrow || !w.includes(&n) {
				continue
			}
			pairs++
			for _, s := range texts {
				if n.match(s) && !w.match(s) {
					t.Fatalf("%q is said to include %q, and does not fit %q", wide, narrow, s)
				}
			}
		}
	}
	if pairs < 300 {
		t.Errorf("got %d pairs: too few to prove anything", pairs)
	}
}

// allOf returns all strings over an alphabet of up to n bytes.
func allOf(alphabet string, n int) []string {
	all := []string{""}
	for from := 0; n > 0; n-- {
		to := len(all)
		for _, s := range all[from:to] {
			for _, c := range alphabet {
				all = append(all, s+string(c))
			}
		}
		from = to
	}
	return all
}
