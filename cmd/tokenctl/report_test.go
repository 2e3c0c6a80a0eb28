package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestARefusedTokenIsReadAsTokenctlWritesIt(t *testing.T) {
	const token = "hush.a-b_c"
	for name, text := range map[string]string{
		"alone": token, "a line": token + "\r\n", "a header": "Authorization: Bearer " + token + "\n", "a key's own header": "X-Api-Key: " + token,
		"JSON": `{"access_token": "` + token + `", "token_type": "Bearer", "generation": 7}`, "JSON of an agent": `{"access_token":"` + token + `","expires_in":5,"generation":7}`,
	} {
		got := refusedIn(text)
		if want := uint64(0); got.bare != token || strings.HasPrefix(name, "JSON") == (got.generation == want) {
			t.Errorf("%s: got %d bytes and generation %d", name, len(got.bare), got.generation)
		}
	}
	for _, odd := range []string{"{", `{"access_token": 5}`, "{}", "null", "[1]"} {
		if got := refusedIn(odd); got.bare != odd && !strings.Contains(odd, " ") || got.generation != 0 {
			t.Errorf("%s: got %+v, want it taken for a token", odd, got)
		}
	}
	for _, blank := range []string{"", " ", "\n\t"} {
		if got := refusedIn(blank); got != (refusedToken{}) {
			t.Errorf("%q: got %+v, want none", blank, got)
		}
	}
}

func FuzzRefusedToken(f *testing.F) {
	for _, seed := range []string{"abc", "Bearer abc\n", `{"access_token":"abc","generation":3}`, `{"access_token":"Bearer abc"}`, "{", " ", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := refusedIn(text)
		if got.bare != bare(got.bare) {
			t.Errorf("%q: got %q, which has more than a token in it", text, got.bare)
		}
		if text == "" || strings.ContainsAny(text, "{ ") || text != strings.TrimSpace(text) {
			return
		}
		for _, form := range []string{text, text + "\n", "Authorization: Bearer " + text, "X-Api-Key: " + text + "\r\n"} {
			if again := refusedIn(form); again.bare != text || again.generation != 0 {
				t.Errorf("%q: got %+v, want the token", form, again)
			}
		}
	})
}

func TestTheExitStatusOfAReportSaysWhoHasToAct(t *testing.T) {
	for status, want := range map[int]int{401: exitLater, 403: exitDenied, 429: exitLater, 500: exitLater, 599: exitLater, 400: exitFix, 404: exitFix} {
		f := (&reportJob{}).unhelped("example/api", rejection{status: status}, 0)
		if f.exit != want || f.action == "" || !strings.Contains(f.what, fmt.Sprint(status)) {
			t.Errorf("%d: got %+v, want the exit status %d", status, f, want)
		}
	}
}

// crowd runs the same report many times at once, each as a process of its own would, and returns how many ended how.
func crowd(t *testing.T, n int, in string, args ...string) map[int]int {
	t.Helper()
	statuses, errs := make([]int, n), make([]bytes.Buffer, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for range 20 { // on a slow machine some of so many handshakes at once run out of time
				errs[i].Reset()
				c := &cli{in: strings.NewReader(in), out: &errs[i], errs: &errs[i]}
				statuses[i] = c.run(context.Background(), append([]string{"report", "--timeout", patience.String()}, args...))
				if !strings.Contains(errs[i].String(), "the connection to ") {
					return
				}
			}
		})
	}
	wg.Wait()
	counts := map[int]int{}
	for i, status := range statuses {
		if counts[status]++; counts[status] == 1 && errs[i].Len() > 0 {
			t.Logf("status %d:\n%s", status, errs[i].String())
		}
	}
	return counts
}

// ways are the flags of the connection: straight to the broker, and through an agent.
func ways(t *testing.T, w *world) map[string][]string {
	t.Helper()
	p := w.startAgent(t, "")
	return map[string][]string{
		"the broker": {"--addr", w.Daemon.Addr().String(), "--ca", filepath.Join(w.dir, "ca.pem"), "--cert", filepath.Join(w.dir, "worker.pem"), "--key", filepath.Join(w.dir, "worker.key")},
		"an agent":   {"--addr", "unix://" + p.socket},
	}
}

func TestAHundredReportsOfOneTokenAreOneExchange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, folder(t))
	w.AddRefreshToken("example/api", "rotating", "files.read") // which may be asked again at once: no floor interval hides a second exchange
	for name, flags := range ways(t, w) {
		used := "Authorization: Bearer " + w.tokenOf("example/api")
		before := w.exchanges("rotating")
		got := crowd(t, 100, used, append(flags, "example/api", "--token-stdin", "--wait", patience.String())...)
		if got[exitOK] != 100 || w.exchanges("rotating") != before+1 {
			t.Errorf("%s: got the exit statuses %v and %d exchanges, want 0 for all, and one", name, got, w.exchanges("rotating")-before)
		}
		if got := crowd(t, 10, used, append(flags, "example/api", "--token-stdin")...); got[exitOK] != 10 || w.exchanges("rotating") != before+1 {
			t.Errorf("%s: those who came late: got the exit statuses %v and %d exchanges, want no further one", name, got, w.exchanges("rotating")-before)
		}
	}
}

func TestReportsOfATokenThatCameJustNowWaitForTheFloorInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, folder(t))
	w.AddClientCredentials("example/api", "files.read") // at "fast", with the floor interval of any provider
	for name, flags := range ways(t, w) {
		_ = w.tokenOf("example/api")
		before := w.exchanges("fast")
		got := crowd(t, 100, "", append(flags, "example/api", "--wait", "10ms")...)
		if got[exitLater]+got[exitOK] != 100 || w.exchanges("fast") > before+1 {
			t.Errorf("%s: got the exit statuses %v and %d exchanges, want at most one exchange", name, got, w.exchanges("fast")-before)
		}
	}
}

func TestAReportThatIsInterruptedEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, folder(t))
	w.AddClientCredentials("example/api", "files.read")
	flags := ways(t, w)["the broker"]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		c := &cli{in: strings.NewReader(""), out: &out, errs: &out}
		ended <- c.run(ctx, append([]string{"report", "example/api", "--wait", "1h"}, flags...))
	}()
	reported := func() bool {
		return strings.Contains(readIfThere(filepath.Join(w.Dir, "audit.jsonl")), `"token.report"`)
	}
	for end := time.Now().Add(patience); !reported() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if got := <-ended; got != exitInterrupted {
		t.Errorf("got the exit status %d, want %d:\n%s", got, exitInterrupted, out.String())
	}
}

// tokenOf is the present token.
func (w *world) tokenOf(credential string) string {
	w.t.Helper()
	return w.Token(credential).GetAccessToken()
}

// exchanges is how often an issuer gave tokens.
func (w *world) exchanges(issuer string) int {
	return w.Sandbox.Count(sandbox.Filter{Issuer: issuer, Endpoint: sandbox.EndpointToken, Status: 200})
}
