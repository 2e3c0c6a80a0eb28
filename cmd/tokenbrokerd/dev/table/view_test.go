package table_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/table"
)

var update = flag.Bool("update", false, "write the golden files anew")

// busy is a model in which everything has happened.
func busy() *table.Model {
	m := &table.Model{Title: "127.0.0.1:36465 · sandbox, not for production",
		Join: []string{"join in:  . '/tmp/tokenbroker-dev-1/env'", "          go run ./cmd/tokenctl subscribe example/crm"}}
	m.Event(at(0), state("example/reports", tokenbroker.StateReady, "", at(15)))
	m.Event(at(0), exchange("example/reports", 4, at(15), 50))
	m.Event(at(0), exchange("example/billing", 7, at(15), 0))
	m.Event(at(1), exchange("example/drive", 12, at(20), 0))
	m.Event(at(1), exchange("example/crm", 15, at(15), 0))
	for n := range 3 {
		m.Used(at(2), table.Use{Worker: n + 1, Credential: "example/crm", Generation: 15, Status: 200})
	}
	m.Note(at(3), "example/drive", "you: revoked the grant, all its tokens")
	m.Used(at(4), table.Use{Worker: 3, Credential: "example/drive", Generation: 12, Status: 401})
	m.Event(at(4), state("example/drive", tokenbroker.StateReauthorize, "invalid_grant", at(20)))
	m.Event(at(4), failed("example/drive", tokenbroker.StateReauthorize, tokenbroker.ClassDeadGrant, "invalid_grant", 400, time.Time{}))
	m.Worker(at(4), 1, at(9))
	m.Event(at(5), broker.Event{Kind: broker.EventDeliver, Credential: "example/crm", Streams: []uint64{1, 2, 3}})
	m.Survey(at(5), []broker.Status{
		status("example/reports", tokenbroker.StateReady, 4, at(15), 2), status("example/billing", tokenbroker.StateReady, 7, at(15), 2),
		status("example/drive", tokenbroker.StateReauthorize, 12, at(20), 2), status("example/crm", tokenbroker.StateReady, 15, at(15), 2)})
	m.Event(at(5), state("example/crm", tokenbroker.StateDegraded, "http_429", at(15)))
	m.Event(at(5), failed("example/crm", tokenbroker.StateDegraded, tokenbroker.ClassThrottled, "http_429", 429, at(7)))
	m.Select(3)
	return m
}

func TestViews(t *testing.T) {
	crowd := busy()
	for i := range 40 {
		crowd.Event(at(5), exchange(fmt.Sprintf("team/with-a-rather-long-name-%02d", i), 99, at(99), 0))
	}
	crowd.Move(30)
	away := busy()
	away.Away(at(5), "drained, back in 3 s; workers keep their last tokens")
	empty := &table.Model{Title: "127.0.0.1:36465 · sandbox, not for production", Join: []string{"join in:  . '/tmp/tokenbroker-dev-1/env'"}}
	for _, v := range []struct {
		name          string
		m             *table.Model
		width, height int
		colour        bool
	}{
		{"80x24", busy(), 80, 24, false}, {"200x50", busy(), 200, 50, false}, {"40x10", busy(), 40, 10, false},
		{"80x24-colour", busy(), 80, 24, true}, {"100x30-crowd", crowd, 100, 30, false}, {"80x12-crowd", crowd, 80, 12, false},
		{"80x24-away", away, 80, 24, false}, {"80x24-empty", empty, 80, 24, false},
	} {
		t.Run(v.name, func(t *testing.T) {
			got := strings.Join(v.m.View(v.width, v.height, at(5.5), v.colour), "\n") + "\n"
			path := filepath.Join("testdata", v.name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

var escape = regexp.MustCompile(`\x1b\[[0-9;]*m`)

func TestAViewFitsEveryScreen(t *testing.T) {
	m := busy()
	m.Note(at(5), "example/crm", "a text\x1b[2J with what a terminal would obey, and 広い")
	for width := range 210 {
		for _, height := range []int{0, 1, 2, 3, 5, 7, 10, 13, 14, 15, 24, 60} {
			lines := m.View(width, height, at(5.5), true)
			if len(lines) > max(height, 1) {
				t.Fatalf("%d×%d: got %d lines", width, height, len(lines))
			}
			for _, l := range lines {
				bare := escape.ReplaceAllString(l, "")
				if n := len([]rune(bare)); n > max(width, 1) {
					t.Fatalf("%d×%d: %q has %d columns", width, height, bare, n)
				}
				if strings.ContainsAny(bare, "\x1b\n\r\t広い") {
					t.Fatalf("%d×%d: %q would do something to the terminal", width, height, bare)
				}
			}
		}
	}
}

// What matters most must be on small screens, too.
func TestASmallScreenShowsTheChosenCredentialAndHowToJoinIn(t *testing.T) {
	m := busy()
	for height := 8; height < 60; height++ {
		for _, width := range []int{60, 62, 80, 100, 200} {
			if view := strings.Join(m.View(width, height, at(5.5), false), "\n"); !strings.Contains(view, ". '/tmp/tokenbroker-dev-1/env'") {
				t.Errorf("%d×%d: how to join in is not there:\n%s", width, height, view)
			}
		}
	}
	for _, height := range []int{3, 5, 10} {
		view := strings.Join(m.View(40, height, at(5.5), false), "\n")
		if !strings.Contains(view, "›3 example/drive   REAUTHORIZE") {
			t.Errorf("40×%d: the chosen one is not there:\n%s", height, view)
		}
	}
}

func TestLongLivesAreShort(t *testing.T) {
	for life, want := range map[time.Duration]string{99 * time.Second: "99s", 30 * time.Minute: "30m", 10 * time.Hour: "10h", 200 * time.Hour: "8d", -time.Second: "0s"} {
		var m table.Model
		m.Event(at(0), exchange("a", 1, at(0).Add(life), 0))
		if got := rows(&m, at(0)); len(got) != 1 || !strings.Contains(got[0], " "+want+" ") {
			t.Errorf("%s: got %q, want %q in it", life, got, want)
		}
	}
}

func TestWithoutColourThereIsNone(t *testing.T) {
	if view := strings.Join(busy().View(80, 24, at(5), false), ""); strings.Contains(view, "\x1b") {
		t.Errorf("got %q", view)
	}
	view := strings.Join(busy().View(80, 24, at(5), true), "\n")
	for _, want := range []string{"\x1b[31mREAUTHORIZE", "\x1b[33mDEGRADED", "\x1b[36myou: revoked"} {
		if !strings.Contains(view, want) {
			t.Errorf("%q is missing", want)
		}
	}
}
