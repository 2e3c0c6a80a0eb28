package client_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// worker makes a client of a broker.
func worker(t testing.TB, b *brokertest.Broker) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Addr: brokertest.Target, Server: brokertest.ServerID,
		Files: b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true}), Dial: []grpc.DialOption{b.Dialer()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// inBubble runs a test against a broker in fake time.
func inBubble(t *testing.T, do func(*testing.T, *brokertest.Broker, *client.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Config{})
		defer b.Stop()
		c := worker(t, b)
		defer func() { _ = c.Close() }()
		do(t, b, c)
	})
}

func TestATokenIsAskedForOnceAndThenKept(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		first, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		b.Shutdown() // what is in memory needs no broker
		time.Sleep(30 * time.Minute)
		again, err := c.Token(t.Context(), "example/api")
		if err != nil || again.AccessToken != first.AccessToken {
			t.Errorf("got generation %d, %v, want the token of before", again.Generation, err)
		}
		if !b.Sandbox.Valid(again.AccessToken.Reveal()) || again.Type != "Bearer" {
			t.Errorf("the token is of no use: type %q", again.Type)
		}
	})
}

func TestANewerTokenIsFetchedWhenTheBrokerHasOne(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		first, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(55 * time.Minute)
		second, err := c.Token(t.Context(), "example/api")
		if err != nil || second.Generation <= first.Generation {
			t.Errorf("got generation %d, %v, want one after %d", second.Generation, err, first.Generation)
		}
	})
}

func TestTheLastGoodTokenOutlivesTheBrokerButNotItself(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		first, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		b.Shutdown()
		time.Sleep(time.Until(first.Expiry) - 10*time.Second)
		if tok, err := c.Token(t.Context(), "example/api"); err != nil || tok.AccessToken != first.AccessToken {
			t.Errorf("10 s before its end: got %v, want the last good token", err)
		}
		time.Sleep(9 * time.Second)
		if tok, err := c.Token(t.Context(), "example/api"); err == nil {
			t.Errorf("at its end: got generation %d, want an error", tok.Generation)
		}
	})
}

func TestErrorsAreThoseOfTheVocabulary(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	c := worker(t, b)
	b.AddRefreshToken("example/dead", "rotating", "files.read")
	b.Sandbox.RevokeFamily(b.Token("example/dead").GetAccessToken())
	for name, tc := range map[string]struct {
		credential string
		opts       []client.Option
		want       error
	}{
		"unknown":                {"example/none", nil, tokenbroker.ErrNotFound},
		"not for this identity":  {"other/api", nil, tokenbroker.ErrNotFound},
		"malformed":              {"Not A Name", nil, tokenbroker.ErrInvalidArgument},
		"a scope it has not":     {"example/dead", []client.Option{client.Scopes("files.write")}, tokenbroker.ErrScopeNotAllowed},
		"a subject":              {"example/dead", []client.Option{client.Subject("someone")}, tokenbroker.ErrScopeNotAllowed},
		"an audience":            {"example/dead", []client.Option{client.Audience("x")}, tokenbroker.ErrScopeNotAllowed},
		"a validity beyond life": {"example/dead", []client.Option{client.MinValidity(20 * time.Hour)}, tokenbroker.ErrMinValidity},
	} {
		_, err := c.Token(t.Context(), tc.credential, tc.opts...)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

func TestAReportBringsANewerToken(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		first, err := c.Token(t.Context(), "example/api")
		if err != nil {
			t.Fatal(err)
		}
		b.Sandbox.RevokeToken(first.AccessToken.Reveal())
		same, wait, err := c.ReportRejected(t.Context(), "example/api", first, 401)
		if err != nil || wait <= 0 || same.Generation != first.Generation {
			t.Fatalf("inside the floor: got generation %d, wait %v, %v, want the same and a wait", same.Generation, wait, err)
		}
		time.Sleep(wait)
		second, wait, err := c.ReportRejected(t.Context(), "example/api", first, 401)
		if err != nil || wait != 0 || !b.Sandbox.Valid(second.AccessToken.Reveal()) {
			t.Errorf("after the floor: got generation %d, wait %v, %v, want a good token", second.Generation, wait, err)
		}
		if tok, err := c.Token(t.Context(), "example/api"); err != nil || tok.AccessToken != second.AccessToken {
			t.Errorf("Token after the report: got generation %d, %v, want %d", tok.Generation, err, second.Generation)
		}
	})
}

func TestASubscriptionGoesOnOverRestarts(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddRefreshToken("example/drive", "rotating", "files.read")
		b.Token("example/drive")
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var got []client.Update
		var wg sync.WaitGroup
		wg.Go(func() {
			for u, err := range c.Subscribe(ctx, "example/drive") {
				if err != nil {
					t.Errorf("got %v, want updates", err)
					return
				}
				mu.Lock()
				got = append(got, u)
				mu.Unlock()
			}
		})
		time.Sleep(10 * time.Minute)
		b.Restart()
		time.Sleep(2 * time.Hour)
		cancel()
		wg.Wait()
		if len(got) < 3 {
			t.Fatalf("got %d updates in two hours, want at least 3", len(got))
		}
		for i, u := range got {
			if u.Token == nil || u.State != tokenbroker.StateReady || u.Recovery != tokenbroker.RecoveryNone {
				t.Errorf("update %d: got %s, %s, token %t, want READY, NONE and a token", i, u.State, u.Recovery, u.Token != nil)
			}
			if i > 0 && u.Order.Compare(got[i-1].Order) <= 0 {
				t.Errorf("update %d: %v does not come after %v", i, u.Order, got[i-1].Order)
			}
		}
		if tok, err := c.Token(t.Context(), "example/drive"); err != nil || tok.Generation != got[len(got)-1].Token.Generation {
			t.Errorf("Token: got generation %d, %v, want what the stream brought last", tok.Generation, err)
		}
	})
}

func TestASubscriptionWaitsForACredentialToCome(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		var missing bool
		for u, err := range c.Subscribe(t.Context(), "example/api") {
			if errors.Is(err, tokenbroker.ErrNotFound) {
				missing = true
				b.AddClientCredentials("example/api", "files.read")
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if u.Token != nil {
				break
			}
		}
		if !missing {
			t.Errorf("want to be told that the credential is not there")
		}
	})
}

func TestASubscriptionEndsWhenItCanNotHelp(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	c := worker(t, b)
	n := 0
	for _, err := range c.Subscribe(t.Context(), "Not A Name") {
		if n++; !errors.Is(err, tokenbroker.ErrInvalidArgument) {
			t.Errorf("got %v, want ErrInvalidArgument", err)
		}
	}
	if n != 1 {
		t.Errorf("got %d errors, want one and the end", n)
	}
}

func TestACallerWhoLeavesEndsOnlyItsOwnWait(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.Sandbox.Fail("fast", sandbox.Fault{Delay: 5 * time.Second})
		b.AddClientCredentials("example/api", "files.read")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Token(ctx, "example/api"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the one who leaves: got %v, want DeadlineExceeded", err)
			}
		})
		wg.Go(func() {
			if _, err := c.Token(t.Context(), "example/api"); err != nil {
				t.Errorf("the one who stays: %v", err)
			}
		})
		wg.Wait()
	})
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	for _, name := range []string{"ADDR", "CA", "CERT", "KEY", "SERVER_NAME"} {
		t.Setenv("TOKENBROKER_"+name, "")
	}
	t.Setenv("TOKENBROKER_CA", "ca.pem")
	if _, err := client.NewFromEnv(); err == nil || !strings.Contains(err.Error(), "set TOKENBROKER_ADDR, TOKENBROKER_CERT, TOKENBROKER_KEY") {
		t.Errorf("got %v, want the names of what is missing", err)
	}
	if _, err := client.New(client.Config{}); err == nil {
		t.Errorf("an empty Config: want an error")
	}
	if _, err := client.New(client.Config{Addr: "127.0.0.1:1", Files: mtls.Files{Cert: "x", Key: "y", CA: "z"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing files: got %v, want ErrNotExist", err)
	}
}

func TestNewFromEnvReachesABroker(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{TCP: true})
	b.AddClientCredentials("example/api", "files.read")
	files := b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	for name, value := range map[string]string{"ADDR": b.Daemon.Addr().String(), "CA": files.CA, "CERT": files.Cert, "KEY": files.Key} {
		t.Setenv("TOKENBROKER_"+name, value)
	}
	c, err := client.NewFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	tok, err := c.TokenSource(t.Context(), "example/api").Token()
	if err != nil || !tok.Valid() || !b.Sandbox.Valid(tok.AccessToken) {
		t.Errorf("got %v, want a valid token through the token source", err)
	}
}

func TestATokenThatIsRefusedForGoodIsNotHandedOutAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		if _, err := c.Token(t.Context(), "example/api"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Daemon.Broker().SetDisabled(t.Context(), "example/api", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(51 * time.Minute) // it is in memory until a newer one may be had
		for range 60 {
			if tok, err := c.Token(t.Context(), "example/api"); !errors.Is(err, tokenbroker.ErrDisabled) {
				t.Fatalf("got generation %d, %v, want ErrDisabled each time", tok.Generation, err)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestCloseEndsSubscriptions(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		var last error
		for u, err := range c.Subscribe(t.Context(), "example/api") {
			if last = err; u.Token != nil {
				_ = c.Close()
			}
		}
		if last == nil || !strings.Contains(last.Error(), "closed") {
			t.Errorf("got %v, want to be told that the client is closed", last)
		}
	})
}

func TestManyVariantsThatEndedHoldNoMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, b *brokertest.Broker, c *client.Client) {
		b.AddClientCredentials("example/api", "files.read")
		source := c.TokenSource(t.Context(), "example/api")
		if _, err := source.Token(); err != nil {
			t.Fatal(err)
		}
		b.Shutdown() // nobody answers for these, so there is nothing to keep of them
		gone, leave := context.WithCancel(t.Context())
		leave()
		for i := range 5000 {
			if _, err := c.Token(gone, "example/api", client.Subject(strconv.Itoa(i))); err == nil {
				t.Fatal("got a token of nobody")
			}
		}
		if got := c.Slots(); got > 2000 {
			t.Errorf("got %d slots, want those that are of no use gone", got)
		}
		if _, err := source.Token(); err != nil {
			t.Errorf("the good one: %v", err)
		}
	})
}
