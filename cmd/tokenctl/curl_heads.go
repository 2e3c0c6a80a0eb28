package main

import (
	"bytes"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// heads reads the heads of the answers that curl gets, one after the other, as --dump-header writes them. The last one counts.
type heads struct {
	first     string   // where the token went
	at        *url.URL // what the last answer is of
	follow    bool
	status    int
	challenge []string // WWW-Authenticate

	line []byte // begun
}

// take reads some more.
func (h *heads) take(data []byte) {
	const longest = 64 << 10
	h.line = append(h.line, data...)
	for {
		line, rest, whole := bytes.Cut(h.line, []byte("\n"))
		if !whole {
			break
		}
		h.read(strings.TrimSpace(string(line)))
		h.line = rest
	}
	if len(h.line) > longest { // nothing that matters is as long
		h.line = nil
	}
}

func (h *heads) read(line string) {
	if rest, ok := strings.CutPrefix(line, "HTTP/"); ok {
		h.status, h.challenge = 0, nil
		if fields := strings.Fields(rest); len(fields) > 1 {
			h.status, _ = strconv.Atoi(fields[1])
		}
		return
	}
	name, value, _ := strings.Cut(line, ":")
	switch value = strings.TrimSpace(value); strings.ToLower(name) {
	case "www-authenticate":
		h.challenge = append(h.challenge, value)
	case "location":
		if h.follow && h.status/100 == 3 && h.at != nil {
			h.at, _ = h.at.Parse(value)
		}
	}
}

// refused is the status of an answer that was given to the token: one of another server, where a redirect led, says nothing of it.
func (h *heads) refused() int {
	if h.at == nil || serverOf(h.at.String()) != h.first {
		return 0
	}
	return h.status
}

var (
	errorParam = regexp.MustCompile(`(?i)(?:^|[\s,])error\s*=\s*"?([A-Za-z0-9_.-]{1,64})(?:"|\s|,|$)`)
	scopeParam = regexp.MustCompile(`(?i)(?:^|[\s,])scope\s*=\s*"([^"]*)"`)
)

// code is the error code of a challenge (RFC 6750 §3.1); "" = none.
func (h *heads) code() string { return h.param(errorParam) }

// missing are the scopes that a challenge names and a token does not have.
func (h *heads) missing(have []string) []string {
	return slices.DeleteFunc(strings.Fields(h.param(scopeParam)), func(s string) bool { return slices.Contains(have, s) })
}

func (h *heads) param(p *regexp.Regexp) string {
	for _, c := range h.challenge {
		if m := p.FindStringSubmatch(c); m != nil && strings.Contains(strings.ToLower(c), "bearer") {
			return m[1]
		}
	}
	return ""
}
