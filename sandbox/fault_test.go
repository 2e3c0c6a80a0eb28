package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestFaultsThatChangeTheAnswer(t *testing.T) {
	for name, row := range map[string]struct {
		fault     sandbox.Fault
		status    int
		contains  string // of the body
		lacks     string // of the body
		header    string // "Name: value"
		code      string // in the journal
		processed bool
	}{
		"429 with seconds": {
			fault:  sandbox.Fault{Status: 429, RetryAfter: 6*time.Second + 1, Body: "Too Many Requests"},
			status: 429, contains: "Too Many Requests", header: "Retry-After: 7",
		},
		"503 without body":       {fault: sandbox.Fault{Status: 503}, status: 503},
		"500 after commit":       {fault: sandbox.Fault{Stage: sandbox.AfterCommit, Status: 500}, status: 500, lacks: "sandbox_", processed: true},
		"204":                    {fault: sandbox.Fault{Status: 204}, status: 204},
		"HTML 200":               {fault: sandbox.Fault{Body: "<html>down</html>"}, status: 200, contains: "down", header: "Content-Type: text/html; charset=utf-8"},
		"scripted invalid_grant": {fault: sandbox.Fault{Status: 400, Body: `{"error":"invalid_grant"}`}, status: 400, contains: "invalid_grant", header: "Content-Type: application/json", code: "invalid_grant"},
		"error in a 200":         {fault: sandbox.Fault{Body: `{"ok":false,"error":"bad_refresh_token"}`}, status: 200, code: "bad_refresh_token"},
		"malformed JSON with real tokens": {
			fault:  sandbox.Fault{Stage: sandbox.AfterCommit, Body: `{"access_token":"{access_token}","expires_in":{expires_in},`},
			status: 200, contains: `{"access_token":"sandbox_at_`, processed: true,
		},
		"form-encoded": {
			fault: sandbox.Fault{Stage: sandbox.AfterCommit, Header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"},
				Body: "access_token={access_token}&refresh_token={refresh_token}&scope={scope}"},
			status: 200, contains: "refresh_token=sandbox_rt_", header: "Content-Type: application/x-www-form-urlencoded", processed: true,
		},
		"no expires_in":       {fault: sandbox.Fault{Omit: []string{"expires_in"}}, status: 200, contains: "sandbox_at_", lacks: "expires_in", processed: true},
		"expires_in string":   {fault: sandbox.Fault{Set: map[string]any{"expires_in": "3600"}}, status: 200, contains: `"expires_in":"3600"`, processed: true},
		"expires_in below 0":  {fault: sandbox.Fault{Set: map[string]any{"expires_in": -1}}, status: 200, contains: `"expires_in":-1`, processed: true},
		"expires_in 1e99":     {fault: sandbox.Fault{Set: map[string]any{"expires_in": json.RawMessage("1e99")}}, status: 200, contains: `"expires_in":1e99`, processed: true},
		"no refresh token":    {fault: sandbox.Fault{Omit: []string{"refresh_token"}}, status: 200, lacks: "sandbox_rt_", processed: true},
		"added error code":    {fault: sandbox.Fault{Set: map[string]any{"error": "server_error"}}, status: 200, code: "server_error", processed: true},
		"other token type":    {fault: sandbox.Fault{Set: map[string]any{"token_type": "mac"}}, status: 200, contains: `"token_type":"mac"`, processed: true},
		"no content type":     {fault: sandbox.Fault{Header: map[string]string{"content-type": ""}}, status: 200, contains: "sandbox_at_", header: "Content-Type: ", processed: true},
		"a clock that is off": {fault: sandbox.Fault{Header: map[string]string{"Date": "Sat, 01 Jan 2000 00:00:00 GMT"}}, status: 200, header: "Date: Sat, 01 Jan 2000 00:00:00 GMT", processed: true},
		"redirect":            {fault: sandbox.Fault{Redirect: "https://elsewhere.test/x"}, status: 307, header: "Location: https://elsewhere.test/x"},
		"302 after commit": {
			fault:  sandbox.Fault{Stage: sandbox.AfterCommit, Status: 302, Redirect: "https://elsewhere.test/x"},
			status: 302, lacks: "sandbox_", header: "Location: https://elsewhere.test/x", processed: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
				w.srv.Fail("acme", row.fault)
				token := w.seed("read")
				got := w.refresh(token)
				if got.status != row.status || !strings.Contains(got.text, row.contains) || row.lacks != "" && strings.Contains(got.text, row.lacks) {
					t.Errorf("got %d %q, want %d with %q, without %q", got.status, got.text, row.status, row.contains, row.lacks)
				}
				if name, value, ok := strings.Cut(row.header, ": "); ok && got.header.Get(name) != value {
					t.Errorf("got %s %q, want %q", name, got.header.Get(name), value)
				}
				w.wantLast(sandbox.Entry{Status: row.status, Code: row.code, Processed: row.processed})
				want := map[bool]int{true: 1}[row.processed]
				if n := w.srv.Redemptions()[sandbox.Fingerprint(token)].Redeemed; n != want {
					t.Errorf("got %d redemptions, want %d", n, want)
				}
				w.refresh(w.seed()).want(t, 200, "") // the fault is spent
			})
		})
	}
}

// wantLast compares outcome and fault-independent parts of the newest entry.
func (w *world) wantLast(want sandbox.Entry) {
	w.t.Helper()
	all := w.srv.Journal()
	got := all[len(all)-1]
	if got.Status != want.Status || got.Code != want.Code || got.Processed != want.Processed {
		w.t.Errorf("got journal outcome %d %q processed %t, want %d %q %t",
			got.Status, got.Code, got.Processed, want.Status, want.Code, want.Processed)
	}
}

func TestRetryDateCountsFromTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{})
		w.srv.Fail("acme", sandbox.Fault{Delay: time.Hour, Status: 503, RetryDate: time.Minute})
		got, err := http.ParseTime(w.refresh(w.seed()).header.Get("Retry-After"))
		if want := time.Now().Add(time.Minute); err != nil || !got.Equal(want) {
			t.Errorf("got %v (%v), want %v", got, err, want)
		}
	})
}

func TestDropBreaksTheConnection(t *testing.T) {
	for name, row := range map[string]struct {
		stage     sandbox.Stage
		processed bool
	}{
		"before processing the token is unspent": {sandbox.BeforeProcessing, false},
		"after commit the successor is lost":     {sandbox.AfterCommit, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
				w.srv.Fail("acme", sandbox.Fault{Stage: row.stage, Drop: true})
				token := w.seed()
				_, err := w.try(w.refreshing(token))
				if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
					t.Fatalf("got %v, want a broken connection", err)
				}
				w.wantLast(sandbox.Entry{Processed: row.processed})
				again := w.refresh(token)
				if lost := again.status == 400; lost != row.processed {
					t.Errorf("got %d on replay, want the token spent: %t", again.status, row.processed)
				}
			})
		})
	}
}

func TestDropAfterCommitIsMendedByGrace(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{Rotation: sandbox.RotateGrace, Grace: time.Minute})
	w.srv.Fail("acme", sandbox.Fault{Stage: sandbox.AfterCommit, Drop: true, Times: 2})
	token := w.seed()
	for range 2 {
		if _, err := w.try(w.refreshing(token)); err == nil {
			t.Fatal("got an answer, want none")
		}
	}
	next := w.refresh(token).want(t, 200, "").str("refresh_token")
	w.refresh(next).want(t, 200, "")
}

func TestTruncateBreaksTheBody(t *testing.T) {
	for name, row := range map[string]struct{ truncate, want int }{
		"some bytes":          {10, 10},
		"none":                {-1, 0},
		"as many as there be": {1 << 20, -1}, // all but one
	} {
		t.Run(name, func(t *testing.T) {
			inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
				w.srv.Fail("acme", sandbox.Fault{Truncate: row.truncate})
				token := w.seed()
				got, err := w.try(w.refreshing(token))
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("got error %v, want %v", err, io.ErrUnexpectedEOF)
				}
				if row.want >= 0 && len(got.text) != row.want || row.want < 0 && !strings.HasPrefix(got.text, `{"access_token"`) {
					t.Errorf("got %d bytes, want %d", len(got.text), row.want)
				}
				w.refresh(token).want(t, 400, "invalid_grant")
			})
		})
	}
}

func TestDelayAndDripTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{})
		w.srv.Fail("acme",
			sandbox.Fault{Delay: 10 * time.Second},
			sandbox.Fault{Stage: sandbox.AfterCommit, Delay: 10 * time.Second},
			sandbox.Fault{Status: 200, Body: "twelve bytes", Drip: time.Second})
		for _, want := range []time.Duration{10 * time.Second, 10 * time.Second, 12 * time.Second} {
			start := time.Now()
			w.refresh(w.seed())
			if got := time.Since(start); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
}

func TestStageDecidesWhatAClientThatLeavesHasSpent(t *testing.T) {
	for name, row := range map[string]struct {
		stage  sandbox.Stage
		delay  time.Duration // 0 = hang
		status int
	}{
		"a delay before processing: nothing": {sandbox.BeforeProcessing, time.Hour, 200},
		"a delay after commit: the token":    {sandbox.AfterCommit, time.Hour, 400},
		"a hang before processing: nothing":  {sandbox.BeforeProcessing, 0, 200},
		"a hang after commit: the token":     {sandbox.AfterCommit, 0, 400},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, sandbox.Issuer{})
				w.srv.Fail("acme", sandbox.Fault{Stage: row.stage, Delay: row.delay, Hang: row.delay == 0})
				token, start := w.seed(), time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := w.try(w.refreshing(token).WithContext(ctx))
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("got %v, want %v", err, context.DeadlineExceeded)
				}
				if got := time.Since(start); got != time.Minute {
					t.Errorf("got an end after %s, want 1m", got)
				}
				if got := w.refresh(token).status; got != row.status {
					t.Errorf("got %d, want %d", got, row.status)
				}
			})
		})
	}
}

func TestDripAndDelayOverTheWire(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{}).overTLS()
	w.srv.Fail("acme", sandbox.Fault{Body: "slow", Delay: time.Millisecond, Drip: time.Millisecond})
	if got := w.refresh(w.seed()).text; got != "slow" {
		t.Errorf("got %q, want slow", got)
	}
}

func TestADripEndsWithItsContext(t *testing.T) {
	inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
		w.srv.Fail("acme", sandbox.Fault{Body: "a", Drip: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := w.try(w.refreshing(w.seed()).WithContext(ctx)); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		})
		w.await(sandbox.Filter{Status: 200})
		cancel()
		wg.Wait()
	})
}

// await polls the journal, bounded, until a request matches.
func (w *world) await(f sandbox.Filter) {
	w.t.Helper()
	for range 100_000 {
		if w.srv.Count(f) > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	w.t.Fatalf("no request matched %+v", f)
}

func TestHangEndsWithTheClient(t *testing.T) {
	inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
		w.srv.Fail("acme", sandbox.Fault{Hang: true})
		token := w.seed()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := w.try(w.refreshing(token).WithContext(ctx)); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		})
		w.await(sandbox.Filter{Fault: "hang", Unanswered: true})
		cancel()
		wg.Wait()
		w.refresh(token).want(t, 200, "")
	})
}

func TestReleaseLetsThoseGoThatHang(t *testing.T) {
	for name, row := range map[string]struct {
		fault sandbox.Fault
		works bool
	}{
		"to be processed": {sandbox.Fault{Name: "stuck", Hang: true}, true},
		"to be answered":  {sandbox.Fault{Name: "stuck", Hang: true, Stage: sandbox.AfterCommit}, true},
		"to be dropped":   {sandbox.Fault{Name: "stuck", Hang: true, Drop: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
				w.srv.Fail("acme", row.fault)
				var wg sync.WaitGroup
				wg.Go(func() {
					if r, err := w.try(w.refreshing(w.seed())); (err == nil && r.status == 200) != row.works {
						t.Errorf("got %d (%v), want an answer: %t", r.status, err, row.works)
					}
				})
				w.await(sandbox.Filter{Fault: "stuck"})
				w.srv.Release("other")
				w.srv.Release("acme")
				wg.Wait()
				w.srv.Release("acme") // nobody hangs: nothing happens
			})
		})
	}
}

func TestHangInABubbleIsSeenAndReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sandbox.Issuer{})
		w.srv.Fail("acme", sandbox.Fault{Hang: true, Stage: sandbox.AfterCommit, Times: 2})
		for range 2 {
			go w.try(w.refreshing(w.seed()))
		}
		synctest.Wait()
		if got := w.srv.Count(sandbox.Filter{Unanswered: true}); got != 2 {
			t.Errorf("got %d hanging, want 2", got)
		}
		w.srv.Release("acme")
		w.srv.Release("acme") // before those released could run
		synctest.Wait()
		if got := w.srv.Count(sandbox.Filter{Status: 200}); got != 2 {
			t.Errorf("got %d answered, want 2", got)
		}
	})
}

func TestScriptIsPlayedInOrder(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{Rotation: sandbox.RotateNone})
	token := w.seed()
	w.srv.Fail("acme",
		sandbox.Fault{Times: 2},
		sandbox.Fault{Status: 500, ClientID: "basic"},
		sandbox.Fault{Status: 501, GrantType: sandbox.GrantClientCredentials},
		sandbox.Fault{Status: 502, Endpoint: sandbox.EndpointResource},
		sandbox.Fault{Status: 503},
		sandbox.Fault{Status: 504, Times: sandbox.Forever})
	var got []int
	for range 5 {
		got = append(got, w.refresh(token).status)
	}
	got = append(got, w.do(w.request("POST", "/acme/token", ccPost)).status, w.do(w.request("GET", "/acme/resource", "")).status)
	basically := w.request("POST", "/acme/token", "grant_type=client_credentials")
	basically.Header.Set("Authorization", basic("basic", "wrong")) // a fault goes by the claim
	got = append(got, w.do(basically).status)
	for i, want := range []int{200, 200, 503, 504, 504, 501, 502, 500} {
		if got[i] != want {
			t.Fatalf("got %v, want %d at %d", got, want, i)
		}
	}
	if n := w.srv.Clear("acme"); n != 1 {
		t.Errorf("got %d faults left, want the one for ever", n)
	}
	w.refresh(token).want(t, 200, "")
}

func TestARedirectThatIsFollowedShowsInTheJournal(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	w.client.CheckRedirect = nil
	w.srv.Fail("acme", sandbox.Fault{Redirect: "https://elsewhere.test/acme/token"})
	w.refresh(w.seed()).want(t, 200, "")
	if j := w.srv.Journal(); len(j) != 2 || j[0].Host != "sandbox.test" || j[1].Host != "elsewhere.test" || j[1].RefreshToken == "" {
		t.Errorf("got %+v, want the second request at elsewhere.test with the refresh token", j)
	}
}

func TestEditingAnAnswerThatIsNotJSONLeavesIt(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	w.srv.Fail("acme", sandbox.Fault{Endpoint: sandbox.EndpointResource, Omit: []string{"scope"}})
	if got := w.do(w.request("GET", "/acme/resource", "")); got.status != 401 || got.text != "Unauthorized\n" {
		t.Errorf("got %d %q, want the usual 401", got.status, got.text)
	}
}
