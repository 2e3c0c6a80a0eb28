package main

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"
)

// refusedToken is what a job knows of the token that was refused.
type refusedToken struct {
	bare       string // "" = not known
	generation uint64 // 0 = not known
}

// tokenJSON is a token in any of the forms in which a job may have got it. A generation is a number or, as the protocol writes it, a string.
type tokenJSON struct {
	AccessToken string      `json:"access_token"` // of tokenctl file and exec, and of an agent
	Generation  json.Number `json:"generation"`
	Token       struct {    // of tokenctl get -o json
		AccessToken string      `json:"accessToken"`
		Generation  json.Number `json:"generation"`
	} `json:"token"`
	Status struct { // of tokenctl get -o exec-credential
		Token string `json:"token"`
	} `json:"status"`
}

// refusedIn reads a token as tokenctl and agents write one: alone, as a header, or as JSON. Whatever else it took for a token would not be
// the present one, so that a report of it would end well and tell the broker nothing.
func refusedIn(text string) (refusedToken, error) {
	text = strings.TrimSpace(text)
	words := strings.Fields(text)
	switch {
	case text == "":
		return refusedToken{}, usagef("the token is empty")
	case text[0] == '{':
		return refusedInJSON(text)
	case len(words) > 1 && !isHeader(text, words):
		return refusedToken{}, usagef("the token has white space in it: give it alone, as one header line, or as JSON of tokenctl file, of tokenctl get, or of an agent")
	}
	return refusedToken{bare: words[len(words)-1]}, nil
}

// isHeader reports whether a text is one line of the form "Name: value" or "Name: Scheme value".
func isHeader(text string, words []string) bool {
	return len(words) <= 3 && len(words[0]) > 1 && strings.IndexByte(words[0], ':') == len(words[0])-1 && !strings.ContainsAny(text, "\r\n")
}

// refusedInJSON leaves out a generation that is none: the token is then compared with the present one.
func refusedInJSON(text string) (refusedToken, error) {
	var j tokenJSON
	_ = json.Unmarshal([]byte(text), &j) // what does not fit is left empty, and an error might quote it
	generation, err := strconv.ParseUint(cmp.Or(j.Generation, j.Token.Generation).String(), 10, 64)
	if err != nil {
		generation = 0
	}
	token := bare(cmp.Or(j.AccessToken, j.Token.AccessToken, j.Status.Token))
	if token == "" {
		return refusedToken{}, usagef("there is no token in the JSON: give that of tokenctl file, of tokenctl get, or of an agent")
	}
	return refusedToken{token, generation}, nil
}

// bare is a token without what is before it in a header.
func bare(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, ' ')+1:]
}
