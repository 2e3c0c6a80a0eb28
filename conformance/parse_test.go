package conformance_test

import (
	"strings"
	"testing"
)

// A fixture that looks at nothing would pass whatever the broker does.
func TestAFixtureThatCouldNotFailIsRefused(t *testing.T) {
	const head = "- name: Something that happens\n  rows: [\"2.10\"]\n  steps:\n"
	for _, c := range []struct{ name, text, says string }{
		{"an unknown key", "- name: Something that happens\n  row: 2.1\n", "unknown field"},
		{"no rows", "- name: Something that happens\n  steps: [{do: get, want: {error: X}}]\n", "rows"},
		{"a row that is not in the table", strings.Replace(head, "2.10", "2.19", 1) + "    - {do: get, want: {error: X}}\n", "2.19"},
		{"no steps", "- name: Something that happens\n  rows: [2.1]\n", "steps"},
		{"a call without an outcome", head + "    - {do: get}\n", "a token or an error"},
		{"an end without a state", head + "    - {do: get, want: {error: X}}\n    - {do: wait 1h}\n", "want.state"},
		{"a state without an action", head + "    - {do: wait 1h, want: {state: DEGRADED}}\n", "want.action"},
		{"a fault that there is not", head + "    - {do: get, replies: [{fault: fire}], want: {error: X}}\n", "fire"},
		{"a description without the marker", head + "    - do: get\n      replies: [{body: '{\"error\":\"x\",\"error_description\":\"No.\"}'}]\n      want: {error: X}\n", marker},
		{"a page without the marker", head + "    - do: get\n      replies: [{body: 'Be right back'}]\n      want: {error: X}\n", marker},
		{"two of one name", head + "    - {do: get, want: {error: X}}\n" + head + "    - {do: get, want: {error: X}}\n", "two of that name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
	if _, err := parse([]byte(head + "    - {do: get, want: {error: X}}\n")); err != nil {
		t.Errorf("a good one: %v", err)
	}
}
