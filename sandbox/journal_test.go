package sandbox_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestJournalTellsWhatHappened(t *testing.T) {
	inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
		token := w.seed("read")
		w.srv.Fail("acme", sandbox.Fault{Name: "outage", Status: 503})
		w.refresh(token)
		w.refresh(token)
		w.refresh(token)
		w.do(w.request("POST", "/nobody/token", ccPost))
		got := w.srv.Journal()
		want := []sandbox.Entry{
			{Fault: "outage", Status: 503},
			{Processed: true, Status: 200},
			{Processed: true, Status: 400, Code: "invalid_grant"},
		}
		for i := range want {
			want[i].Issuer, want[i].Endpoint, want[i].GrantType = "acme", sandbox.EndpointToken, sandbox.GrantRefreshToken
			want[i].ClientID, want[i].RefreshToken = "post", sandbox.Fingerprint(token)
		}
		want = append(want, sandbox.Entry{Processed: true, Status: 404})
		if len(got) != len(want) {
			t.Fatalf("got %d entries, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i].Time.IsZero() || !strings.HasPrefix("https://"+got[i].Host, w.base) {
				t.Errorf("entry %d: got time %v, host %q", i, got[i].Time, got[i].Host)
			}
			want[i].Time, want[i].Host = got[i].Time, got[i].Host
			if got[i] != want[i] {
				t.Errorf("entry %d: got %+v, want %+v", i, got[i], want[i])
			}
		}
		if s := fmt.Sprintf("%+v", got); strings.Contains(s, "sandbox_") || strings.Contains(s, "s3cret") {
			t.Error("the journal holds a token or a secret")
		}
	})
}

func TestJournalIsBoundedAndCountsAreNot(t *testing.T) {
	srv, err := sandbox.New(sandbox.Config{JournalSize: 3, Issuers: []sandbox.Issuer{
		{Name: "acme", Clients: []sandbox.Client{{ID: "post", Secrets: []string{"s3cret"}, Auth: sandbox.AuthPost}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, srv: srv, client: &http.Client{Transport: srv}, base: "https://sandbox.test"}
	for i := range 5 {
		r := w.request("POST", "/acme/token", ccPost)
		r.Host = fmt.Sprintf("host%d", i)
		w.do(r).want(t, 200, "")
	}
	var hosts []string
	for _, e := range srv.Journal() {
		hosts = append(hosts, e.Host)
	}
	if got := strings.Join(hosts, " "); got != "host2 host3 host4" {
		t.Errorf("got %q, want the newest three in order", got)
	}
	if got := srv.Count(sandbox.Filter{}); got != 5 {
		t.Errorf("got %d, want 5", got)
	}
}

func TestUnregisteredNamesAreNotCountedApart(t *testing.T) {
	w := newWorld(t, sandbox.Issuer{})
	for i := range 3 {
		w.do(w.request("POST", "/acme/token", fmt.Sprintf("grant_type=x%d&client_id=y%d&client_secret=z", i, i)))
	}
	for _, e := range w.srv.Journal() {
		if e.GrantType != "" || e.ClientID != "" {
			t.Errorf("got %q %q, want neither", e.GrantType, e.ClientID)
		}
	}
	if got := w.srv.Count(sandbox.Filter{Code: "invalid_client"}); got != 3 {
		t.Errorf("got %d, want 3", got)
	}
}

func TestCountsAreExactUnderConcurrentClients(t *testing.T) {
	const clients, rounds = 8, 40
	inBothForms(t, sandbox.Issuer{}, func(t *testing.T, w *world) {
		w.srv.Fail("acme", sandbox.Fault{Status: 503, Times: clients})
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				token := w.seed("read")
				for range rounds {
					r, err := w.try(w.refreshing(token))
					if err != nil {
						t.Error(err)
					}
					if r.status == 200 {
						token = r.str("refresh_token")
					}
				}
			})
		}
		wg.Wait()
		for want, f := range map[int]sandbox.Filter{
			clients * rounds:         {Issuer: "acme", Endpoint: sandbox.EndpointToken, GrantType: sandbox.GrantRefreshToken, ClientID: "post"},
			clients:                  {Fault: "status 503", Status: 503},
			clients*rounds - clients: {Status: 200},
		} {
			if got := w.srv.Count(f); got != want {
				t.Errorf("%+v: got %d, want %d", f, got, want)
			}
		}
		if got := w.srv.Count(sandbox.Filter{Unanswered: true}); got != 0 {
			t.Errorf("got %d unanswered, want 0", got)
		}
		redeemed := 0
		for _, r := range w.srv.Redemptions() {
			if r.Presented > 1 || r.Redeemed > 1 {
				t.Errorf("got %+v, want each token used once at most", r)
			}
			redeemed += r.Redeemed
		}
		if want := clients*rounds - clients; redeemed != want {
			t.Errorf("got %d redemptions, want %d", redeemed, want)
		}
	})
}
