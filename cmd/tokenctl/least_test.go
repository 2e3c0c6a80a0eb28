package main

import (
	"strings"
	"testing"
)

func TestWhatIsBelowZeroIsRefused(t *testing.T) {
	for line, says := range map[string]string{
		"curl example/api --retry-wait -1s -- https://api.example": "--retry-wait: give 0s or more",
		"report example/api --wait -1s":                            "--wait: give 0s or more",
		"exec --env A=example/api --grace -1ns -- true":            "--grace: give 0s or more",
		"get example/api --min-validity -5m":                       "--min-validity: give 0s or more",
		"file a=example/api --min-validity -5m":                    "--min-validity: give 0s or more",
		"subscribe example/api --count -1":                         "--count: give 0 or more",
		"audit tail --count -1":                                    "--count: give 0 or more",
		"audit tail --recent -1":                                   "--recent: give 0 or more",
		"audit verify audit.jsonl --unchained -1":                  "--unchained: give 0 or more",
		"get example/api --timeout -1s":                            "--timeout: give 0s or more",
		"get example/api --timeout 0s":                             "--timeout: give more than 0s",
		"audit list --limit -1":                                    "--limit: give 1 or more",
		"report example/api --status -1":                           "--status: give the API's status",
	} {
		if r := local(t, "", strings.Fields(line)...); r.exit != exitUsage || !strings.HasPrefix(r.errs, "tokenctl: "+says) {
			t.Errorf("%s: got the exit status %d and %q, want %d and %q", line, r.exit, r.errs, exitUsage, says)
		}
	}
}
