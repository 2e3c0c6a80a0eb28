package client_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/mtls"
)

// A worker asks whenever it needs the token; what is in memory costs nothing.
func Example() {
	defer withBroker()() // a broker, and TOKENBROKER_ADDR, _CA, _CERT and _KEY in the environment

	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()
	tok, err := c.Token(context.Background(), "example/reports")
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(tok.Type, tok.AccessToken, tok.Scopes) // a Secret prints as [redacted]; Reveal gives it
	// Output: Bearer [redacted] [reports.read]
}

// A job that holds connections of its own is told of each fresh token as it comes.
func ExampleClient_Subscribe() {
	defer withBroker()()
	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()

	for update, err := range c.Subscribe(context.Background(), "example/reports") {
		if err != nil {
			log.Print(err) // it goes on: the credential may come alive
			continue
		}
		if update.Token != nil {
			fmt.Println(update.State, update.Token.Type)
			break // ends the subscription; a job would go on
		}
	}
	// Output: READY Bearer
}

// A program that hands its token on, say to a child process, does so each time that there is a fresh one.
func ExampleClient_OnChange() {
	defer withBroker()()
	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()

	fresh := make(chan client.Change, 1)
	stop := c.OnChange("example/reports", func(change client.Change) {
		if change.Token == nil {
			return // change.Err or change.State says why
		}
		select {
		case fresh <- change:
		default: // nobody took the last one: the program ends
		}
	})
	change := <-fresh
	stop()
	fmt.Println(change.Credential, change.State, change.Token.Type)
	// Output: example/reports READY Bearer
}

// A health check tells of a token that should have been renewed while there is time to see to it.
func ExampleClient_Stale() {
	defer withBroker()()
	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()
	if _, err := c.Token(context.Background(), "example/reports"); err != nil {
		log.Panic(err)
	}

	if since, stale := c.Stale("example/reports"); stale {
		fmt.Println("no fresh token since", since)
	} else {
		fmt.Println("fresh")
	}
	// Output: fresh
}

// Several brokers are asked in turn, those that are well. TOKENBROKER_ADDR takes the same.
func ExampleConfig_addr() {
	defer withBroker()()

	cfg := client.ConfigFromEnv()
	_, port, _ := net.SplitHostPort(cfg.Addr)
	cfg.Addr = "127.0.0.1:" + port + ",localhost:" + port // in earnest: a.example:8443,b.example:8443
	c, err := client.New(cfg)
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()
	tok, err := c.Token(context.Background(), "example/reports")
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(tok.Type)
	// Output: Bearer
}

// NewFromEnv reads TOKENBROKER_ADDR, _CA, _CERT and _KEY, and says what is missing.
func ExampleNewFromEnv() {
	defer withBroker()()
	os.Unsetenv("TOKENBROKER_KEY")

	_, err := client.NewFromEnv()
	fmt.Println(strings.Split(err.Error(), ":")[1])
	// Output: set TOKENBROKER_KEY
}

// Many libraries take an oauth2.TokenSource.
func ExampleClient_TokenSource() {
	defer withBroker()()
	api := exampleAPI()
	defer api.Close()
	c, err := client.NewFromEnv()
	if err != nil {
		log.Panic(err)
	}
	defer c.Close()

	source := c.TokenSource(context.Background(), "example/reports")
	hc := &http.Client{Transport: &oauth2.Transport{Source: source}}
	resp, err := hc.Get(api.URL + "/reports/today")
	if err != nil {
		log.Panic(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode)
	// Output: 200
}

// exampleAPI takes any bearer token.
func exampleAPI() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "all is well")
	}))
}

// withBroker starts a broker with the credential example/reports, and puts into the environment what a worker needs. The function that
// it returns ends it.
func withBroker() func() {
	t := &stage{}
	b := brokertest.Start(t, brokertest.Config{TCP: true})
	b.AddClientCredentials("example/reports", "reports.read")
	files := b.Files(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	for name, value := range map[string]string{"ADDR": b.Daemon.Addr().String(), "CA": files.CA, "CERT": files.Cert, "KEY": files.Key} {
		if err := os.Setenv("TOKENBROKER_"+name, value); err != nil {
			log.Panic(err)
		}
	}
	return t.end
}

// stage is what package brokertest needs of a test, for examples, which have none. Whatever else of testing.TB it would call panics.
type stage struct {
	testing.TB
	cleanups []func()
}

func (s *stage) Helper()                           {}
func (s *stage) Failed() bool                      { return false }
func (s *stage) Context() context.Context          { return context.Background() }
func (s *stage) Cleanup(f func())                  { s.cleanups = append(s.cleanups, f) }
func (s *stage) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
func (s *stage) Errorf(format string, args ...any) { log.Fatalf(format, args...) }

func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("", "tokenbroker-example-")
	if err != nil {
		log.Panic(err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (s *stage) end() {
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
}
