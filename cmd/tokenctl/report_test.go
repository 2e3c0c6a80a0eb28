package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/brokertest"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestARefusedTokenIsReadAsTokenctlAndAgentsWriteIt(t *testing.T) {
	const token = "hush.a-b_c"
	for text, generation := range map[string]uint64{
		token: 0, token + "\r\n": 0, "Authorization: Bearer " + token + "\n": 0, "X-Api-Key: " + token: 0, "a:b": 0, "null": 0, "[1]": 0,
		`{"access_token": "` + token + `", "token_type": "Bearer", "generation": 7}`:      7,
		`{"access_token":"` + token + `","expires_in":5,"generation":"2157"}`:             2157,
		` {"token":{"accessToken":"` + token + `","generation":"224"},"state":"READY"} `:  224,
		`{"kind":"ExecCredential","status":{"token":"` + token + `"}}`:                    0,
		`{"access_token":"` + token + `","generation":"new"}`:                             0,
		`{"access_token":"` + token + `","generation":-1}`:                                0,
		`{"access_token":"` + token + `","generation":"18446744073709551616","scope":[]}`: 0,
	} {
		want := token
		if !strings.Contains(text, token) {
			want = text
		}
		if got, err := refusedIn(text); err != nil || got != (refusedToken{want, generation}) {
			t.Errorf("%s: got %+v and %v, want the token and the generation %d", text, got, err, generation)
		}
	}
}

func TestWhatIsNoTokenIsNotTakenForOne(t *testing.T) {
	for _, text := range []string{
		"", " ", "\n\t", "{", "{}", "{hush", `{"access_token": 5}`, `{"access_token":" "}`, `{"error":"hush"}`, `{"token":"hush"}`, `{"token":{"generation":"5"}}`,
		"hush hush", "hush\nhush", "hush\thush", "Authorization: Bearer hush hush", "Authorization: Bearer hush\nAccept: hush", "Authorization:\nhush",
		": hush", "a b: hush", "token:\n  accessToken: hush\n", "<html> hush </html>",
	} {
		if got, err := refusedIn(text); err == nil || got != (refusedToken{}) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: got %+v and %v, want an error that does not quote it", text, got, err)
		}
		c := &cli{in: strings.NewReader(text)}
		_, err := (&reportJob{stdin: true}).which(t.Context(), c)
		if f, ok := errors.AsType[*failure](err); !ok || f.exit != exitUsage || strings.Contains(f.what+f.action, "hush") {
			t.Errorf("%q: got %v, want the exit status %d", text, err, exitUsage)
		}
	}
}

func FuzzRefusedToken(f *testing.F) {
	for _, seed := range []string{"abc", "Bearer abc\n", `{"access_token":"abc","generation":"3"}`, `{"access_token":"Bearer abc"}`, "{", " ", "", "a\u0085b",
		`{"token":{"accessToken":"abc","generation":"3"}}`, `{"status":{"token":"abc"}}`, "A: b\nC: d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := refusedIn(text)
		if got.bare != bare(got.bare) || (got.bare == "") != (err != nil) {
			t.Errorf("%q: got %q and %v, want a token alone, or an error", text, got.bare, err)
		}
		if text == "" || strings.Contains(text, "{") || strings.ContainsFunc(text, unicode.IsSpace) {
			return
		}
		for _, form := range []string{text, text + "\n", "Authorization: Bearer " + text, "X-Api-Key: " + text + "\r\n"} {
			if again, err := refusedIn(form); err != nil || again.bare != text || again.generation != 0 {
				t.Errorf("%q: got %+v and %v, want the token", form, again, err)
			}
		}
		if again, err := refusedIn(text + "\n" + text); err == nil {
			t.Errorf("%q twice: got %+v, want an error", text, again)
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
				if statuses[i] != exitLater || strings.Contains(errs[i].String(), "the broker was told") {
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
	w.AddClientCredentials("example/api", "files.read") // at "fast", whose floor interval no machine is slow enough for
	for name, flags := range ways(t, w) {
		_ = w.tokenOf("example/api")
		before := w.exchanges("fast")
		got := crowd(t, 100, "", append(flags, "example/api", "--wait", "10ms")...)
		if got[exitLater]+got[exitOK] != 100 || w.exchanges("fast") > before+1 {
			t.Errorf("%s: got the exit statuses %v and %d exchanges, want at most one exchange", name, got, w.exchanges("fast")-before)
		}
	}
}

func TestA401IsOneRecordIfNoNewerTokenCanComeInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, folder(t))
	w.AddClientCredentials("example/api", "files.read") // at "fast", whose floor interval is longer than any of these waits
	_ = w.tokenOf("example/api")
	flags := ways(t, w)["the broker"]
	for i, wait := range []string{"0s", "10ms", "300ms"} {
		got := crowd(t, 1, "", append(slices.Clone(flags), "example/api", "--wait", wait)...)
		if records := w.reports(); got[exitLater] != 1 || records != i+1 {
			t.Errorf("--wait %s: got the exit statuses %v and %d records in all, want %d and %d", wait, got, records, exitLater, i+1)
		}
	}
}

func TestAReportIsRefusedForWhatItIsTold(t *testing.T) {
	t.Setenv("TOKENBROKER_ADDR", "unix:///nowhere/agent.sock")
	for line, want := range map[string]string{
		"--wait -1s":                      "--wait: give 0s or more\n",
		"--generation 5 --token-stdin":    "give --generation or --token-stdin, not both\n",
		"--generation 5 --token-file run": "give --generation or --token-file, not both\n",
		"--generation 0":                  "--generation: no token has the generation 0\n",
	} {
		status, out, errs := runs(t, append([]string{"report", "example/api"}, strings.Fields(line)...)...)
		if status != exitUsage || out != "" || !strings.HasPrefix(errs, "tokenctl: "+want) {
			t.Errorf("%s: got the exit status %d and %q, want %d and %q", line, status, errs, exitUsage, want)
		}
	}
}

// TestWhoMayNotSubscribeLearnsOfATokenThatAnotherJobBrought has the report of a token that came just now, which is not replaced at once, and the
// credential brought anew while it waits.
func TestWhoMayNotSubscribeLearnsOfATokenThatAnotherJobBrought(t *testing.T) {
	t.Parallel()
	w := newWorld(t, folder(t))
	flags := ways(t, w)["the broker"]
	w.AddClientCredentials("example/api", "files.read")
	_ = w.tokenOf("example/api")
	w.SetPolicy(strings.Replace(brokertest.DefaultPolicy, `["token.*"]`, `["token.get", "token.report"]`, 1))
	w.untilUnheard("example/api")
	ended := make(chan map[int]int, 1)
	go func() { ended <- crowd(t, 1, "", append(flags, "example/api", "--wait", "5s")...) }()
	for end := time.Now().Add(patience); w.reports() == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	_, err := tokenbrokerv1.NewCredentialServiceClient(w.Operator()).DeleteCredential(t.Context(), &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/api"})
	if err != nil {
		t.Fatal(err)
	}
	w.AddClientCredentials("example/api", "files.read")
	if got := <-ended; got[exitOK] != 1 || w.reports() != 1 {
		t.Errorf("got the exit statuses %v and %d reports, want %d and one", got, w.reports(), exitOK)
	}
}

// untilUnheard waits until the worker may not subscribe.
func (w *world) untilUnheard(credential string) {
	w.t.Helper()
	tokens := tokenbrokerv1.NewTokenServiceClient(w.Worker())
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		stream, err := tokens.Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{
			Selectors: []*tokenbrokerv1.Selector{{Credential: credential}}})
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) == codes.PermissionDenied {
			return
		} else if err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Fatal("the policy is not in force")
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
	for end := time.Now().Add(patience); w.reports() == 0 && time.Now().Before(end); {
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

// reports is how many reports the audit trail has.
func (w *world) reports() int {
	return strings.Count(readIfThere(filepath.Join(w.Dir, "audit.jsonl")), `"token.report"`)
}

// exchanges is how often an issuer gave tokens.
func (w *world) exchanges(issuer string) int {
	return w.Sandbox.Count(sandbox.Filter{Issuer: issuer, Endpoint: sandbox.EndpointToken, Status: 200})
}
