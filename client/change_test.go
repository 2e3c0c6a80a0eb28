package client_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
)

func TestASlowListenerGetsTheNewestAndHoldsUpNobody(t *testing.T) {
	tapped(t, brokertest.Config{Issuers: short}, func(t *testing.T, b *brokertest.Broker, c *client.Client, _ *tap) {
		b.AddClientCredentials("example/api", "files.read")
		var slow, quick diary
		c.OnChange("example/api", func(got client.Change) {
			if slow.add(got); got.Token == nil {
				return
			}
			if tok, err := c.Token(t.Context(), "example/api"); err != nil || tok.Generation != got.Token.Generation {
				t.Errorf("got generation %d while %d is held, %v, want the newest", got.Token.Generation, tok.Generation, err)
			}
			time.Sleep(10 * time.Minute)
		})
		c.OnChange("example/api", quick.add)
		time.Sleep(time.Hour)
		if n := len(quick.tokens()); n < 40 {
			t.Errorf("the quick one: got %d tokens in an hour, want each, of a minute and a half", n)
		}
		got := slow.tokens()
		if len(got) < 5 || len(got) > 7 || !slices.IsSorted(got) {
			t.Errorf("the slow one: got generations %d, want one for each ten minutes, in order", got)
		}
	})
}

func TestNoCallBeginsAfterStop(t *testing.T) {
	tapped(t, brokertest.Config{Issuers: short}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read")
		var calls atomic.Int64
		stop := c.OnChange("example/api", func(client.Change) { calls.Add(1) })
		time.Sleep(10 * time.Minute)
		stop()
		n := calls.Load()
		time.Sleep(time.Minute)
		if got := p.now(); len(got) != 0 {
			t.Errorf("a minute after: got streams of %d selectors, want none for nobody", got)
		}
		time.Sleep(time.Hour)
		if got := calls.Load(); n == 0 || got != n {
			t.Errorf("got %d calls before the stop and %d after it, want some, and none", n, got-n)
		}
		if got := p.now(); len(got) != 0 {
			t.Errorf("got streams of %d selectors, want none for nobody", got)
		}
		_ = c.Close()
		c.OnChange("example/api", func(client.Change) { calls.Add(1) })()
		synctest.Wait()
	})
}

func TestConfigOnChangeIsToldOfEveryCredentialInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		var told diary
		c, err := client.New(client.Config{Addr: brokertest.Target, Server: brokertest.ServerID, OnChange: told.add,
			Files: b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true}), Dial: []grpc.DialOption{b.Dialer()}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		for i := range 3 {
			name := fmt.Sprintf("example/api-%d", i)
			b.AddClientCredentials(name, "files.read")
			c.OnChange(name, func(client.Change) {})
		}
		time.Sleep(2 * time.Hour)
		tokens := map[string]int{}
		for _, got := range told.all() {
			if got.Token != nil {
				tokens[got.Credential]++
			}
		}
		for i := range 3 {
			if n := tokens[fmt.Sprintf("example/api-%d", i)]; n < 2 {
				t.Errorf("credential %d: got %d tokens in two hours, want at least 2", i, n)
			}
		}
	})
}

func TestAReportSaysTheErrorCode(t *testing.T) {
	tapped(t, brokertest.Config{}, func(t *testing.T, b *brokertest.Broker, c *client.Client, p *tap) {
		b.AddClientCredentials("example/api", "files.read")
		tok, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReportRejected(t.Context(), "example/api", tok, 403, client.ErrorCode("insufficient_scope")); err != nil {
			t.Fatal(err)
		}
		if got := p.report.GetErrorCode(); got != "insufficient_scope" || p.report.GetHttpStatus() != 403 {
			t.Errorf("got %q with %d, want what the resource server said", got, p.report.GetHttpStatus())
		}
	})
}
