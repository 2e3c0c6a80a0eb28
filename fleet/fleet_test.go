package fleet_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// seed is that of a run's chances.
func seed(t testing.TB) uint64 {
	t.Helper()
	n := rand.Uint64()
	if text := os.Getenv("TOKENBROKER_FLEET_SEED"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("TOKENBROKER_FLEET_SEED=%d", n)
	return n
}

func TestNoRequestFailsForWantOfATokenThatThereIs(t *testing.T) {
	n := seed(t)
	l := newLedger()
	s := newSite(t, planned(), l, newResource(t, l, rand.New(rand.NewPCG(n, 0))))
	agent := s.agent()
	v := &verdicts{s: s}
	eyes := &lookout{}
	f := &fleet{s: s, v: v}
	f.start(n, eyes)
	jobs := startJobs(s)
	for range s.plan.turns {
		f.trouble()
	}
	f.settle(jobs)
	if t.Failed() {
		return
	}
	s.broker.end() // so that no exchange is under way
	kept := s.records()
	lost := s.losses(kept)
	v.judge()
	v.report(t)
	t.Logf("the slowest %d of %d beats of the machine took %v", len(v.pace.late()), len(v.pace.beats), v.pace.late())
	t.Logf("the resource server's replies: %v", s.api.counts)
	s.exchanges(generations(kept), lost)
	t.Logf("looked %d times at %d processes; %d tokens were in the environment that is for them", eyes.looks, eyes.seen, eyes.expected)
	for what := range eyes.found {
		t.Errorf("a token was in the %s", what)
	}
	if eyes.expected == 0 {
		t.Error("no token was ever seen where it has to be, so that looking for others proves nothing")
	}
	agent.end()
	t.Logf("no token is in any of %d files", s.written())
}

// fleet is all that runs beside the broker.
type fleet struct {
	s      *site
	v      *verdicts
	stop   context.CancelFunc // of the work
	eyes   context.CancelFunc
	work   sync.WaitGroup
	others sync.WaitGroup
}

// start has workers begin, tokens break, and somebody look.
func (f *fleet) start(n uint64, eyes *lookout) {
	ctx, stop := context.WithCancel(f.s.t.Context())
	f.stop = stop
	life, end := context.WithCancel(f.s.t.Context())
	f.eyes = end
	f.s.t.Cleanup(func() {
		stop()
		f.work.Wait()
		end()
		f.others.Wait()
	})
	f.others.Go(func() { eyes.watch(life) })
	f.others.Go(func() { f.v.pace.watch(life, f.s) })
	workers := make([]*worker, f.s.plan.workers)
	var ready sync.WaitGroup
	for i := range workers {
		workers[i] = newWorker(f.s, i)
		f.others.Go(func() { workers[i].listen(life) })
		ready.Go(func() { workers[i].settle() })
	}
	ready.Wait()
	f.v.began = time.Now()
	for i, name := range credentialNames() {
		dice := rand.New(rand.NewPCG(n, uint64(i)+1))
		f.work.Go(func() { f.s.harm(ctx, name, dice) })
	}
	for _, w := range workers {
		f.work.Go(func() { w.work(ctx, f.v.add) })
	}
}

// harm breaks tokens of a credential until ctx ends. Between two attacks a token lives until it is refreshed for its age, so that the broker
// has no reason to take reports for a habit of the API, which would put off refreshes.
func (s *site) harm(ctx context.Context, name string, dice *rand.Rand) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		wait := time.Now().Add(time.Duration(dice.Int64N(int64(s.plan.life / 3))))
		for time.Now().Before(wait) && ctx.Err() == nil {
			<-tick.C
		}
		one, had := s.ledger.newest(name)
		switch dice.IntN(4) {
		case 0:
			s.up.RevokeToken(one.secret)
			s.ledger.kill(one.secret)
		case 1:
			s.ledger.kill(one.secret)
		case 2:
			s.api.refuseOnce(name)
		default: // and what comes in its place, which must not be replaced within two floors
			s.ledger.kill(one.secret)
			if !until(ctx, func() bool { _, n := s.ledger.newest(name); return n > had }) {
				return
			}
			one, had = s.ledger.newest(name)
			s.ledger.kill(one.secret)
		}
		if !until(ctx, func() bool { return s.ledger.lived(name, had, s.plan.life*2/5) }) {
			return
		}
	}
}

// until waits until a condition holds; false if ctx ends before that.
func until(ctx context.Context, holds func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ctx.Err() == nil; <-tick.C {
		if holds() {
			return true
		}
	}
	return false
}

// trouble is one turn of what befalls the broker.
func (f *fleet) trouble() {
	s := f.s
	f.calm()
	s.ledger.down(true)
	must(s.t, s.broker.cmd.Process.Kill())
	<-s.broker.done
	s.start()
	f.calm()
	s.ledger.down(false)
	s.broker.end()
	s.start()
	f.calm()
	s.ledger.down(false)
	must(s.t, s.broker.cmd.Process.Signal(syscall.SIGSTOP))
	time.Sleep(s.plan.outage) // this long, whatever happens
	must(s.t, s.broker.cmd.Process.Signal(syscall.SIGCONT))
	s.ledger.up()
	f.calm()
}

// calm lets the fleet work, for a time and for some requests at least.
func (f *fleet) calm() {
	so, until := f.v.count(), time.Now().Add(f.s.plan.calm)
	eventually(f.s.t, "requests that end", func() bool { return time.Now().After(until) && f.v.count() > so+f.s.plan.workers })
}

// settle ends the work, and waits for those who do it.
func (f *fleet) settle(jobs []*job) {
	t := f.s.t
	for _, j := range jobs {
		eventually(t, "a request of "+j.name, func() bool { return len(j.outcomes()) > 0 || j.proc.over() })
	}
	f.stop()
	f.work.Wait()
	f.s.write("stop", "")
	for _, j := range jobs {
		eventually(t, "the end of "+j.name, j.proc.over)
		j.keeper.end()
		for _, o := range j.outcomes() {
			f.v.add(o)
		}
		if code := j.proc.cmd.ProcessState.ExitCode(); code != 0 || len(j.outcomes()) == 0 {
			b, _ := os.ReadFile(j.proc.log)
			t.Errorf("%s ended with status %d after %d requests:\n%s", j.name, code, len(j.outcomes()), b)
		}
		if b, _ := os.ReadFile(f.s.path("histories", j.name)); !strings.Contains(string(b), "curl") {
			t.Errorf("the history of %s holds no commands, so that no token in it proves nothing", j.name)
		}
	}
	f.eyes()
	f.others.Wait()
}

// exchanges wants one exchange per generation, but for those that were lost, and no two of a credential within a floor.
func (s *site) exchanges(generations, lost int) {
	s.t.Helper()
	issued := 0
	for name, all := range s.ledger.of {
		issued += len(all)
		for i := 1; i < len(all); i++ {
			if gap := all[i].asked.Sub(all[i-1].at); gap < floor && !s.ledger.killed(all[i-1].at, all[i].asked) {
				s.t.Errorf("%s: got an exchange %v after another one, want none within %v", name, gap, floor)
			}
		}
	}
	s.t.Logf("%d exchanges, %d generations, %d lost with a broker that was killed", issued, generations, lost)
	if asked := s.up.Count(sandbox.Filter{Endpoint: sandbox.EndpointToken}); asked != issued {
		s.t.Errorf("got %d token requests of which %d brought a token, want that of all", asked, issued)
	}
	if issued != generations+lost {
		s.t.Errorf("got %d exchanges for %d generations and %d losses, want one each", issued, generations, lost)
	}
}

// killed reports whether the broker was killed between two exchanges, or while the first of them was on its way.
func (l *ledger) killed(first, second time.Time) bool {
	for _, k := range l.kills {
		if k.After(first.Add(-time.Second)) && k.Before(second) {
			return true
		}
	}
	return false
}

func TestAThousandLocalSubscribersAreOneStreamOfTheBroker(t *testing.T) {
	const conns, each = 100, 10
	l := newLedger()
	p := planned()
	p.life = time.Hour
	s := newSite(t, p, l, newResource(t, l, rand.New(rand.NewPCG(1, 1))))
	s.agent()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told sync.WaitGroup
	for i := range conns {
		c := s.open(agentConfig(s))
		for range each {
			stream, err := tokenbrokerv1.NewTokenServiceClient(c.Conn()).Subscribe(ctx, &tokenbrokerv1.SubscribeRequest{
				Selectors: []*tokenbrokerv1.Selector{{Credential: credentialNames()[i%4]}}})
			must(t, err)
			told.Go(func() {
				for {
					m, err := stream.Recv()
					if err != nil {
						t.Errorf("a stream of the agent: %v", err)
						return
					}
					if m.GetUpdate().GetToken() != nil {
						return
					}
				}
			})
		}
	}
	told.Wait()
	if got := s.metric("tokenbroker_streams"); got != "1" { // the agent has told all of them, so its own streams have settled
		eventually(t, "one stream of the broker for a thousand of the agent, not "+got, func() bool { return s.metric("tokenbroker_streams") == "1" })
	}
}

// metric is the value of a metric of the broker that has no labels.
func (s *site) metric(name string) string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.ops()+"/metrics", nil)
	must(s.t, err)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	must(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(s.t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return fmt.Sprintf("no %s", name)
}
