package dev_test

import (
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/terminal"
)

// Rows are in the order of names.
const (
	billing = "1"
	crm     = "2"
	drive   = "3"
	reports = "4"
)

func TestKeysMakeThingsGoWrongAndTheyRecover(t *testing.T) {
	t.Parallel()
	type step struct {
		keys string
		want []string // what has to appear, in this order
	}
	for name, steps := range map[string][]step{
		"a refresh that fails": {{billing + "fn", []string{"you: next 3 refreshes fail",
			"example/billing +refresh failed: HTTP 500", "example/billing .*(recovered|served)", "billing +READY "}}},
		"a 429": {{reports + "ln", []string{"you: next refresh gets a 429",
			"example/reports +refresh failed: HTTP 429", "example/reports .*(recovered|served)", "reports +READY "}}},
		"a slow provider": {{drive + "sn", []string{"you: next refresh takes 4 s", "drive +READY .*asking the provider, [1-9]s",
			"drive .*(refreshed|served|got a token)", "drive +READY "}}},
		"a grant that is revoked, and consented anew": {
			{drive + "r", []string{"you: revoked the grant", "drive .*the API says 401 to worker", "refresh failed: invalid_grant → REAUTHORIZE",
				"drive +REAUTHORIZE"}},
			{"c", []string{"you: consented anew", "drive .*(recovered|served)", "drive +READY "}}},
		"no consent where there is none": {{reports + "c", []string{"client_credentials needs no consent"}}},
		"a worker that is killed":        {{"k", []string{"worker 1 was killed", "1 ○ killed, back in", "worker 1 is back", "1 ● API says 200"}}},
		"a drain": {{"d", []string{"you: drain the broker", "drained, back in 3 s", "the broker is back", "drive .*(refreshed|got a token|served)",
			"drive +READY .* 3 "}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, dev.Config{}, true)
			r.await(t, "3 ● API says 200")
			r.await(t, "(?s)billing +READY.*drive +READY.*reports +READY")
			for _, s := range steps {
				r.press(t, s.keys)
				for _, want := range s.want {
					r.await(t, want)
				}
			}
			r.press(t, "q")
			if err := r.quit(); err != nil {
				t.Error(err)
			}
			r.noSecrets(t)
		})
	}
}

func TestTheFleetReportsARevokedAccessTokenAndOneExchangeMendsIt(t *testing.T) {
	t.Parallel()
	r := start(t, dev.Config{}, true)
	r.await(t, "3 ● API says 200")
	r.await(t, "reports +READY")
	for { // a refresh that is due may come before a worker uses what was revoked
		r.press(t, reports+"r")
		r.await(t, "you: revoked the access token")
		if strings.HasSuffix(r.await(t, "(?s)you: revoked the access token[^─]*?reports +(the API says 401|refreshed ahead)"), "401") {
			break
		}
	}
	r.await(t, "(?s)the API says 401[^─]*reports +(1 exchange served|refreshed)")
	r.await(t, "reports +READY .* (1 exchange served|refreshed)")
}

func TestAHerdIsServedByOneExchange(t *testing.T) {
	t.Parallel()
	r := start(t, dev.Config{}, true)
	row := regexp.MustCompile(`3 example/drive +READY +(\d+) .* (refreshed|got|recovered|1 exchange served (\d+))`)
	for seen := ""; ; { // a refresh that is due may come before the herd's: then the herd finds a fresh token
		m := row.FindStringSubmatch(r.await(t, row.String()))
		if len(m[3]) > 1 {
			return
		}
		if m[1] != seen {
			r.press(t, drive+"n")
			seen = m[1]
		}
	}
}

func TestHelpLeavesTheTableAndComesBack(t *testing.T) {
	t.Parallel()
	r := start(t, dev.Config{}, true)
	r.await(t, `\x1b\[\?1049h`)
	r.press(t, "h")
	r.await(t, `\x1b\[\?1049l`)
	r.await(t, `(?s)go run \./cmd/tokenctl get example/drive\r\n.*grpcurl -cacert.*Keys act on.*Any key goes back`)
	r.press(t, "x")
	r.await(t, `\x1b\[\?1049h`)
	r.await(t, "LAST EVENT")
	r.press(t, "\x1b[B\x1b[B")
	r.await(t, "›3 .*example/drive")
	r.press(t, "\x1b[A")
	r.await(t, "›2 .*example/crm")
	r.press(t, "zZ\x1b[C") // nothing that is known
	r.press(t, "hq")       // it also quits from there
	if err := r.quit(); err != nil {
		t.Error(err)
	}
}

// givenBack says whether the screen was left before anything else was printed, and the terminal restored after that.
func givenBack(t *testing.T, r *running, dir string) {
	t.Helper()
	text := r.String()
	left, restored, summary := strings.LastIndex(text, "\x1b[?1049l"), strings.Index(text, "<restored>"), strings.Index(text, "Seen in ")
	if left < 0 || restored < left || summary < restored || strings.Count(text, "<restored>") != 1 {
		t.Errorf("screen left at %d, terminal restored at %d, summary at %d: want them once and in this order", left, restored, summary)
	}
	gone(t, dir)
}

func TestEveryWayOutGivesTheTerminalBack(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*testing.T, *running) error{
		"q":        func(t *testing.T, r *running) error { r.press(t, "q"); return r.quit() },
		"Ctrl-C":   func(t *testing.T, r *running) error { r.press(t, "\x03"); return r.quit() },
		"a signal": func(_ *testing.T, r *running) error { return r.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, dev.Config{}, true)
			r.await(t, "LAST EVENT")
			dir := r.folder(t)
			if err := leave(t, r); err != nil {
				t.Error(err)
			}
			givenBack(t, r, dir)
		})
	}
}

func TestATerminalThatCannotBeSwitchedEndsDev(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	err := dev.Run(t.Context(), dev.Config{Out: newOutput(), Terminal: &terminal.Terminal{Raw: func() (func(), error) { return nil, refused }}})
	if !errors.Is(err, refused) {
		t.Errorf("got %v, want %v", err, refused)
	}
}

func TestAPanicGivesTheTerminalBackFirst(t *testing.T) {
	t.Parallel()
	out, frames := newOutput(), 0
	in, _ := io.Pipe()
	broken := &terminal.Terminal{In: in, Out: out, Raw: func() (func(), error) { return func() { _, _ = out.Write([]byte("<restored>")) }, nil },
		Size: func() (int, int) {
			if frames++; frames > 2 {
				panic("a bug in a view")
			}
			return 80, 24
		}}
	defer func() {
		if p := recover(); p != "a bug in a view" {
			t.Errorf("got panic %v", p)
		}
		if text := out.String(); strings.LastIndex(text, "\x1b[?1049l") < 0 || strings.Count(text, "<restored>") != 1 {
			t.Errorf("the terminal was not given back")
		}
	}()
	_ = dev.Run(t.Context(), dev.Config{Out: out, Terminal: broken})
}
