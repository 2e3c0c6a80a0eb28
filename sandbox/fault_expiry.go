package sandbox

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// ExpiryForm is how an answer writes its expires_in, when not as a number of seconds.
type ExpiryForm string

// The forms of expires_in.
const (
	ExpiresOmitted  ExpiryForm = "omit"
	ExpiresNull     ExpiryForm = "null"
	ExpiresString   ExpiryForm = "string" // "3600"
	ExpiresFloat    ExpiryForm = "float"  // 3600.5
	ExpiresMillis   ExpiryForm = "ms"     // 3600000
	ExpiresEmpty    ExpiryForm = "empty"  // ""
	ExpiresZero     ExpiryForm = "zero"
	ExpiresNegative ExpiryForm = "negative" // -1
	ExpiresHuge     ExpiryForm = "huge"     // 1e99
)

// expiryForms says what each writes for a number of seconds, nil = nothing.
func expiryForms() map[ExpiryForm]func(seconds string) any {
	text := func(s string) func(string) any { return func(string) any { return json.RawMessage(s) } }
	return map[ExpiryForm]func(string) any{
		ExpiresOmitted:  nil,
		ExpiresNull:     text("null"),
		ExpiresString:   func(s string) any { return s },
		ExpiresFloat:    func(s string) any { return json.RawMessage(s + ".5") },
		ExpiresMillis:   func(s string) any { return json.RawMessage(s + "000") },
		ExpiresEmpty:    text(`""`),
		ExpiresZero:     text("0"),
		ExpiresNegative: text("-1"),
		ExpiresHuge:     text("1e99"),
	}
}

func (e ExpiryForm) known() bool {
	_, ok := expiryForms()[e]
	return ok || e == ""
}

// write changes expires_in among the members of an answer. An answer that has none is left alone.
func (e ExpiryForm) write(members map[string]any, usual json.RawMessage) {
	if _, err := strconv.ParseInt(string(usual), 10, 64); err != nil || e == "" {
		return
	}
	delete(members, "expires_in")
	if form := expiryForms()[e]; form != nil {
		members["expires_in"] = form(string(usual))
	}
}

// ExpiryForms lists the forms.
func ExpiryForms() []ExpiryForm { return slices.Sorted(maps.Keys(expiryForms())) }
