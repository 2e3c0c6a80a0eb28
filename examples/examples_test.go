// Package examples_test runs the examples as a worker author would, against a real broker, and holds each language to the same list of
// behaviours.
package examples_test

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// language is one that there is an example in.
type language struct {
	name    string
	prepare func() error // once before the first run
	args    []string     // of the worker
}

var languages = []language{
	{"Python", sync.OnceValue(needPython), []string{python(), "python/worker.py"}},
	{"TypeScript", compiled, []string{"node", "typescript/dist/worker.js"}},
}

func (l language) command(t *testing.T) []string {
	t.Helper()
	if err := l.prepare(); err != nil {
		t.Fatalf("%s: %v", l.name, err)
	}
	return l.args
}

// ways are how a worker gets to the broker: the environment that it needs for each.
var ways = map[string]func(*testing.T, *brokertest.Broker) []string{
	"by a certificate of its own": straight,
	"through an agent":            throughAgent,
}

// behaviours are what every example has to show.
var behaviours = map[string]func(*testing.T, *stage){
	"calls an API with a token, and asks the broker for it once": func(t *testing.T, s *stage) {
		for range 5 {
			s.works("example/api")
		}
		if got := len(s.recorded(audit.KindCall, policy.TokenGet)); got != 1 {
			t.Errorf("got %d questions for a token, want 1", got)
		}
	},
	"hears of each renewal, of two credentials, by one stream": func(t *testing.T, s *stage) {
		s.AddClientCredentials("example/other", "files.read")
		s.works("example/api")
		s.works("example/other")
		for range 3 {
			for _, name := range []string{"example/api", "example/other"} {
				s.worker.fresh(name, s.renew(name))
				before := s.api.last().token
				s.works(name)
				if s.api.last().token == before {
					t.Errorf("%s: the token of before was used once more", name)
				}
			}
		}
		s.eventually("one stream is left", func() bool { return len(s.streams()) == 1 })
	},
	"goes on over a restart of the broker": func(_ *testing.T, s *stage) {
		s.works("example/api")
		s.Restart()
		s.works("example/api")
		s.worker.fresh("example/api", s.renew("example/api"))
		s.works("example/api")
	},
	"keeps the last good token through an outage, and no longer than it lives": func(t *testing.T, s *stage) {
		s.Add(of("short", "example/short"))
		s.works("example/api")
		s.worker.job("example/short", s.api.URL+"/files")
		s.worker.fresh("example/short", 1)
		s.Shutdown()
		over := time.NewTimer(shortLife)
		defer over.Stop()
		s.works("example/api")
		<-over.C // whatever the worker has of it is over now
		before := len(s.api.seen())
		if got := s.worker.job("example/short", s.api.URL+"/files"); !strings.HasPrefix(got, "failed ") || len(s.api.seen()) != before {
			t.Errorf("the worker says %q, and the API was called %d times, want failed and no call", got, len(s.api.seen())-before)
		}
		s.works("example/api")
		s.Restart()
		s.worker.fresh("example/api", s.renew("example/api"))
		s.worker.job("example/short", s.api.URL+"/files")
	},
	"gets past a 401 by one exchange": func(t *testing.T, s *stage) {
		s.works("example/api")
		before := s.exchanges("fast")
		s.Sandbox.RevokeToken(s.api.last().token)
		s.works("example/api")
		if got := s.exchanges("fast") - before; got != 1 {
			t.Errorf("got %d exchanges, want 1", got)
		}
		if seen := s.api.seen(); len(seen) != 3 || seen[1].status != 401 || seen[1].token != seen[0].token || seen[2].token == seen[0].token {
			t.Errorf("got %d calls, want one with a token, one more with it that is refused, and one with a newer token", len(seen))
		}
	},
	"reports a scope that is missing, and does not try again": func(t *testing.T, s *stage) {
		before := s.exchanges("fast")
		if got := s.worker.job("example/api", s.api.URL+"/wide"); !strings.HasPrefix(got, "refused 403 ") {
			t.Errorf("the worker says %q, want refused 403", got)
		}
		if got := len(s.recorded(audit.KindCall, policy.TokenReport)); got != 1 || len(s.api.seen()) != 1 || s.exchanges("fast") > before+1 {
			t.Errorf("got %d reports, %d calls, %d exchanges, want one of each", got, len(s.api.seen()), s.exchanges("fast")-before)
		}
	},
	"gives its token to nobody else": func(t *testing.T, s *stage) {
		if got := s.worker.job("example/api", s.api.URL+"/moved"); !strings.HasPrefix(got, "refused 302 ") {
			t.Errorf("the worker says %q of a redirect, want refused 302", got)
		}
		if got := s.worker.job("example/api", strings.Replace(s.api.URL, "https", "http", 1)+"/files"); !strings.Contains(got, "https only") {
			t.Errorf("the worker says %q of plain http, want that it does not do that", got)
		}
	},
	"says why there is no token, and takes one when it comes": func(t *testing.T, s *stage) {
		if got := s.worker.job("example/later", s.api.URL+"/files"); !strings.HasPrefix(got, "failed ") || !strings.Contains(got, "NOT_FOUND") {
			t.Errorf("the worker says %q, want failed for NOT_FOUND", got)
		}
		s.works("example/api")
		s.AddClientCredentials("example/later", "files.read")
		s.works("example/later")
	},
	"forgets a token that it may not have any more": func(_ *testing.T, s *stage) {
		s.works("example/api")
		s.SetPolicy(strings.Replace(brokertest.DefaultPolicy, `"example/*"`, `"example/none"`, 1))
		s.eventually("the worker has no token", func() bool { return !s.tries("example/api") })
		s.SetPolicy(brokertest.DefaultPolicy)
		s.eventually("the worker has one again", func() bool { return s.tries("example/api") })
	},
}

func TestEachExampleBehavesAsTheGoClientDoes(t *testing.T) {
	for _, l := range languages {
		for how, way := range ways {
			for what, show := range behaviours {
				t.Run(l.name+" "+how+" "+what, func(t *testing.T) {
					t.Parallel()
					show(t, setUp(t, l, way))
				})
			}
		}
	}
}

func TestACertificateThatWasReplacedIsTakenUp(t *testing.T) {
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			var own mtls.Files
			s := setUp(t, l, func(_ *testing.T, b *brokertest.Broker) []string {
				own = files(b)
				return with(b.Daemon.Addr().String(), own)
			})
			s.works("example/api")
			s.eventually("the worker has a stream", func() bool { return len(s.streams()) == 1 })
			fresh := files(s.Broker)
			for from, to := range map[string]string{fresh.Cert: own.Cert, fresh.Key: own.Key} {
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
			s.Restart()
			s.eventually("the worker shows another certificate", func() bool {
				opened := s.recorded(audit.KindStreamOpen, policy.TokenSubscribe)
				return opened[0].CertSerial != opened[len(opened)-1].CertSerial
			})
			s.works("example/api")
		})
	}
}

func TestAnAddressWhereNobodyAnswersIsPassedOver(t *testing.T) {
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			s := setUp(t, l, func(_ *testing.T, b *brokertest.Broker) []string {
				return with("127.0.0.1:1, "+b.Daemon.Addr().String(), files(b))
			})
			s.works("example/api")
			s.Restart()
			s.worker.fresh("example/api", s.renew("example/api"))
		})
	}
}
