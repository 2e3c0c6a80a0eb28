package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
)

// documented are the reasons of the broker's errors with their codes, as docs/errors.md lists them.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	list, code := map[string]string{}, ""
	reason := regexp.MustCompile("`([A-Z_]+)`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.Contains(line, "---") || strings.Contains(line, "| reason |") {
			continue
		}
		if c := strings.Fields(cells[1]); len(c) > 0 {
			code = c[0]
		}
		for _, m := range reason.FindAllStringSubmatch(cells[2], -1) {
			list[m[1]] = code
		}
	}
	if len(list) < 30 {
		t.Fatalf("got %d reasons, want all of docs/errors.md", len(list))
	}
	return list
}

func TestAMethodThatAListenerDoesNotServeIsNoFaultOfTheBroker(t *testing.T) {
	if got := remedyOf("UNKNOWN_METHOD", codes.Unimplemented, target{}, "").exit; got != exitFix {
		t.Errorf("got exit status %d, want %d: the address is that of workers", got, exitFix)
	}
}

// protocol is the text of the protocol, whose comments name reasons.
func protocol(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("../../proto/tokenbroker/v1/*.proto")
	if err != nil || len(files) < 5 {
		t.Fatalf("got %d files, want the protocol: %v", len(files), err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func TestEachReasonOfTheBrokerHasAnExitStatus(t *testing.T) {
	list := documented(t)
	for reason := range list {
		if _, ok := remedies[reason]; !ok {
			t.Errorf("docs/errors.md has %s, and remedies has no row for it", reason)
		}
	}
	for reason := range remedies {
		if _, ok := list[reason]; !ok && !strings.Contains(protocol(t), reason) {
			t.Errorf("remedies has %s, and neither docs/errors.md nor the protocol does", reason)
		}
	}
}

func TestAReasonAndItsCodeAgreeOnTheExitStatus(t *testing.T) {
	byCode := map[string]codes.Code{"INVALID_ARGUMENT": codes.InvalidArgument, "NOT_FOUND": codes.NotFound, "ALREADY_EXISTS": codes.AlreadyExists,
		"PERMISSION_DENIED": codes.PermissionDenied, "RESOURCE_EXHAUSTED": codes.ResourceExhausted, "FAILED_PRECONDITION": codes.FailedPrecondition,
		"ABORTED": codes.Aborted, "UNAVAILABLE": codes.Unavailable, "UNAUTHENTICATED": codes.Unauthenticated, "UNIMPLEMENTED": codes.Unimplemented,
		"DEADLINE_EXCEEDED": codes.DeadlineExceeded, "CANCELLED": codes.Canceled, "INTERNAL": codes.Internal}
	for reason, name := range documented(t) {
		code, known := byCode[name]
		if !known && name != "any" {
			t.Errorf("%s: code %q of docs/errors.md is not known", reason, name)
		}
		want := exitOf(code)
		switch {
		case name == "any":
			continue
		case reason == "REAUTHORIZATION_REQUIRED", reason == "SCOPE_NOT_GRANTED": // those that their code does not tell apart
			want = exitReauthorize
		case reason == "UNKNOWN_PROVIDER":
			want = exitNotFound
		case reason == "UNKNOWN_METHOD": // the address or the version is wrong, not the broker
			want = exitFix
		}
		if got := remedies[reason].exit; got != want {
			t.Errorf("%s (%s): got exit status %d, want %d", reason, name, got, want)
		}
	}
}

func TestEachExitStatusIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/tokenctl.md")
	if err != nil {
		t.Fatal(err)
	}
	used := []int{exitOf(codes.OK), exitInterrupted, lastSecret.exit, noSecret.exit}
	for _, r := range remedies {
		used = append(used, r.exit)
	}
	for _, e := range exits {
		if row := fmt.Sprintf("| %d | %s |", e.status, e.means); !strings.Contains(string(page), row) {
			t.Errorf("docs/tokenctl.md has no row %q", row)
		}
		if !slices.Contains(used, e.status) {
			t.Errorf("no error has exit status %d", e.status)
		}
		used = slices.DeleteFunc(used, func(s int) bool { return s == e.status })
	}
	if len(used) > 0 {
		t.Errorf("exit status %d is not documented", used)
	}
}

func TestAStatusThatIsNotKnownHasTheExitStatusOfItsCode(t *testing.T) {
	for code, want := range map[codes.Code]int{codes.Unavailable: 6, codes.NotFound: 3, codes.Unknown: 1, codes.DataLoss: 1, codes.Unauthenticated: 4,
		codes.OutOfRange: 2, codes.Aborted: 8, codes.FailedPrecondition: 7} {
		if got := remedyOf("SOMETHING_NEW", code, target{}, "").exit; got != want {
			t.Errorf("SOMETHING_NEW with %s: got %d, want %d", code, got, want)
		}
		if got := remedyOf("TRANSPORT", code, target{}, "").exit; got != want {
			t.Errorf("TRANSPORT with %s: got %d, want %d", code, got, want)
		}
	}
}

func TestWhoAsksAnAgentWhoseBrokerIsAwayIsToldWhereToLook(t *testing.T) {
	if got := remedyOf("TRANSPORT", codes.Unavailable, target{}, ""); !strings.Contains(got.action, "the agent's log") || got.exit != exitLater {
		t.Errorf("got %+v, want where to look", got)
	}
	if got := remedyOf("CERTIFICATE_EXPIRED", codes.Unauthenticated, target{}, ""); got.exit != exitDenied {
		t.Errorf("got %+v, want exit status %d", got, exitDenied)
	}
}

// TestTheCommandsThatErrorsNameAreThere keeps advice from naming a command or a flag that there is not.
func TestTheCommandsThatErrorsNameAreThere(t *testing.T) {
	all := []string{lastSecret.do, noSecret.do}
	for _, r := range remedies {
		all = append(all, r.do)
	}
	for _, do := range all {
		for _, noun := range []string{"credential", "client"} {
			if command := (target{noun: noun, name: "example/x"}).command(do); command != "" {
				checkCommand(t, command)
			}
		}
	}
}

func checkCommand(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	c := &cli{}
	cmd, rest, err := c.root().Find(words[1:])
	if err != nil || words[0] != "tokenctl" || !cmd.Runnable() {
		t.Errorf("%s: no such command: %v", line, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%s: %v", line, err)
		return
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

// walk visits each command.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

func TestNoFlagTakesASecret(t *testing.T) {
	c := &cli{}
	words := regexp.MustCompile(`secret|token|password|key$`)
	fine := regexp.MustCompile(`-file$|-stdin$|-expires$|^show-token$|^key$`) // the last is a file
	walk(c.root(), func(cmd *cobra.Command) {
		for _, name := range flagNames(cmd) {
			if words.MatchString(name) && !fine.MatchString(name) {
				t.Errorf("%s --%s: a secret on a command line can be read by others", cmd.CommandPath(), name)
			}
		}
	})
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	for line := range strings.Lines(cmd.Flags().FlagUsages() + cmd.PersistentFlags().FlagUsages()) {
		if m := regexp.MustCompile(`--([a-z-]+)`).FindStringSubmatch(line); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}

func TestEachCommandSaysWhatItDoes(t *testing.T) {
	c := &cli{}
	walk(c.root(), func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: got %q, want a sentence without a full stop", cmd.CommandPath(), cmd.Short)
		}
		if cmd.Args == nil && cmd != cmd.Root() {
			t.Errorf("%s says nothing of its arguments", cmd.CommandPath())
		}
	})
}

func TestHelpFitsATerminal(t *testing.T) {
	c := &cli{}
	walk(c.root(), func(cmd *cobra.Command) {
		var b strings.Builder
		cmd.SetOut(&b)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		text, _, found := strings.Cut(b.String(), "\nUsage:")
		if !found && cmd.Runnable() {
			t.Errorf("%s: the help has no usage", cmd.CommandPath())
		}
		_, flags, _ := strings.Cut(b.String(), "\nFlags:")
		for line := range strings.Lines(text + flags) { // examples are to be copied: their lines are not broken
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 {
				t.Errorf("%s: a line of %d columns does not fit: %s", cmd.CommandPath(), n, line)
			}
		}
		if got, want := strings.Fields(text), strings.Fields(cmp.Or(cmd.Long, cmd.Short)); !slices.Equal(got, want) {
			t.Errorf("%s: the help has other words than its text", cmd.CommandPath())
		}
	})
}

func TestHelpKeepsRowsAndCommandsApart(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("word ", 30))
	got := refill("One\nline.\n\n  --term  " + long + "\n          goes on\n  --other  short\n\n    tokenctl get example/reports\n    tokenctl version\n")
	for _, want := range []string{"One line.\n", "\n          word", "goes on\n  --other  short\n", "\n    tokenctl get example/reports\n    tokenctl version\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %q in it", got, want)
		}
	}
}

func TestAnInterruptedCommandSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b strings.Builder
	if got := report(ctx, &b, context.Canceled); got != exitInterrupted || b.String() != "tokenctl: interrupted\n" {
		t.Errorf("got %d %q, want %d and that it was interrupted", got, b.String(), exitInterrupted)
	}
}

func TestADeadGrantHasOneWayOutAndSaysItOnce(t *testing.T) {
	for grant, want := range map[string]string{
		"":                   "a person has to consent again, or bring a new refresh token",
		"authorization_code": "a person has to consent again",
		"refresh_token":      "bring a new refresh token",
		"static":             "bring a new token or API key",
	} {
		info := &errdetails.ErrorInfo{Reason: "REAUTHORIZATION_REQUIRED", Metadata: map[string]string{"grantType": grant, "recoveryAction": "REAUTHORIZE"}}
		st, err := status.New(codes.FailedPrecondition, tokenbroker.ErrReauthorize.Error()+": invalid_grant").WithDetails(info)
		if err != nil {
			t.Fatal(err)
		}
		f := refusal(st.Err(), workers("a"))
		if f.exit != exitReauthorize || f.action != want || f.do == "" {
			t.Errorf("%s: got %+v, want the action %q", grant, f, want)
		}
		if text := f.text(); strings.Count(text, "consent") != strings.Count(want, "consent") {
			t.Errorf("%s: got a text that says things twice, or another way out:\n%s", grant, text)
		}
	}
}

func TestHowToConsentAgainDependsOnTheGrant(t *testing.T) {
	for grant, want := range map[string]string{
		"":                   "tokenctl credential describe a",
		"refresh_token":      "tokenctl credential import a --refresh-token-stdin",
		"authorization_code": "tokenctl connect a --reauthorize",
		"device_code":        "tokenctl connect a --device --reauthorize",
		"static":             "tokenctl credential import a --static-token-stdin",
	} {
		at := target{noun: "credential", name: "a"}
		if got := at.command(remedyOf("REAUTHORIZATION_REQUIRED", codes.FailedPrecondition, at, grant).do); got != want {
			t.Errorf("%s: got %q, want %q", grant, got, want)
		}
	}
}
