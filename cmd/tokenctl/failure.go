package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// failure is an error as the one at the keyboard meets it.
type failure struct {
	exit   int
	what   string // was wrong, in one line
	reason string // the broker's; "" = none
	field  string // of the request, if one is wrong
	action string // what has to happen, in words
	again  time.Duration
	do     string // the command that does it
	err    error  // where it came from; nil if here
}

// Error implements error.
func (f *failure) Error() string { return f.what }

// Unwrap gives what the failure was made of.
func (f *failure) Unwrap() error { return f.err }

// usagef is an error of the one at the keyboard.
func usagef(format string, args ...any) error {
	return &failure{exit: exitUsage, what: fmt.Sprintf(format, args...)}
}

// usageError is usagef with a command that helps.
func usageError(what, do string) error {
	return &failure{exit: exitUsage, what: what, do: do}
}

// childExit is the end of a command that was run for the caller, who gets its exit status. It has said itself what was wrong.
type childExit struct{ status int }

// Error implements error.
func (e *childExit) Error() string { return fmt.Sprintf("the command ended with status %d", e.status) }

// report tells an error and returns the exit status. The command's context tells whether somebody interrupted it.
func report(ctx context.Context, w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	if child, ok := errors.AsType[*childExit](err); ok {
		return child.status
	}
	if ctx.Err() != nil {
		_, _ = fmt.Fprintln(w, "tokenctl: interrupted")
		return exitInterrupted
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{exit: exitOther, what: err.Error()}
	}
	_, _ = io.WriteString(w, f.text())
	return f.exit
}

// text is the failure in lines: what, and then why and what to do.
func (f *failure) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tokenctl: %s\n", clean(strings.ReplaceAll(f.what, "\n", "; ")))
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-8s%s\n", name, clean(value))
		}
	}
	line("reason", f.reason)
	line("field", f.field)
	line("action", f.action)
	if f.again > 0 {
		line("again", "in "+spell(f.again))
	}
	line("do", f.do)
	if f.reason != "" {
		line("more", "tokenctl explain "+word(f.reason))
	}
	return b.String()
}

// spell is a duration for a sentence, rounded up to a second: "12 s", "1m30s".
func spell(d time.Duration) string {
	d = (d + time.Second - 1).Truncate(time.Second)
	if d < time.Minute {
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return d.String()
}

// target is what a request was about.
type target struct {
	noun, name string // "credential", "client", "consent" or "provider"
	secret     bool   // it was about a secret of the client
	worker     bool   // workers ask for it, who may get tokens and nothing else
}

func targetOf(req any) target {
	switch r := req.(type) {
	case *tokenbrokerv1.GetTokenRequest:
		return workers(r.GetCredential())
	case *tokenbrokerv1.ReportRejectedRequest:
		return workers(r.GetCredential())
	}
	if r, ok := req.(interface{ GetCredential() string }); ok {
		return target{noun: "credential", name: r.GetCredential()}
	}
	if r, ok := req.(interface{ GetConsentId() string }); ok {
		return target{noun: "consent", name: r.GetConsentId()}
	}
	if r, ok := req.(*tokenbrokerv1.GetProviderRequest); ok {
		return target{noun: "provider", name: r.GetProvider()}
	}
	t := target{noun: "client"}
	if r, ok := req.(interface{ GetOauthClient() string }); ok {
		t.name = r.GetOauthClient()
	}
	_, t.secret = req.(interface{ GetSecretId() string })
	return t
}

// workers is the target of a request for tokens of a credential.
func workers(credential string) target {
	return target{noun: "credential", name: credential, worker: true}
}

// ofWorkers are the commands that need no more rights than tokens do, or no broker.
var ofWorkers = []string{"get", "subscribe", "explain", "version", "provider"}

// command fills in a remedy. A worker is told whose it is, where it may not do it itself.
func (t target) command(do string) string {
	if do == "" || strings.Contains(do, "{name}") && t.name == "" {
		return ""
	}
	do = strings.NewReplacer("{noun}", t.noun, "{name}", word(t.name)).Replace(do)
	if words := strings.Fields(do); t.worker && !slices.Contains(ofWorkers, words[1]) {
		return "an operator: " + do
	}
	return do
}

// word is a text as one word of a shell.
func word(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// fieldsOf names the fields that are wrong.
func fieldsOf(d *errdetails.BadRequest) string {
	var names []string
	for _, v := range d.GetFieldViolations() {
		names = append(names, v.GetField())
	}
	return strings.Join(names, ", ")
}

// refusal is what the broker's error says; nil if it is not the broker's but one of the connection.
func refusal(err error, t target) *failure {
	st, _ := status.FromError(err)
	f := &failure{what: st.Message(), err: err}
	var meta map[string]string
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			f.reason, meta = d.GetReason(), d.GetMetadata()
		case *errdetails.RetryInfo:
			f.again = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			f.field = fieldsOf(d)
		}
	}
	if f.reason == "" {
		return nil
	}
	r := remedyOf(f.reason, st.Code(), t, meta["grantType"])
	if own, known := ofAgents[f.reason]; known && meta["origin"] == "agent" {
		r = own
	}
	told := meta["recoveryAction"]
	f.exit, f.action, f.do = r.exit, cmp.Or(r.action, recoveries[told], told), t.command(r.do)
	if t.name != "" && !strings.Contains(f.what, t.name) {
		f.what = t.noun + " " + t.name + ": " + f.what
	}
	return f
}
