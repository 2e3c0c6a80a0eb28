package dev

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev/table"
)

const (
	workers   = 3
	useEvery  = time.Second     // a worker calls the API
	killedFor = 5 * time.Second // a killed worker is away
	patience  = 5 * time.Second // of a worker with the broker
)

// fleet is the sample workers. Each subscribes to every credential over a connection of its own, and uses each token at the sandbox's API.
type fleet struct {
	s *session

	mu   sync.Mutex
	next int                  // whom kill takes
	kill []context.CancelFunc // worker → ends its present life; nil while it has none
}

func newFleet(s *session) *fleet { return &fleet{s: s, kill: make([]context.CancelFunc, workers)} }

// start lets the workers work until ctx ends.
func (f *fleet) start(ctx context.Context) {
	for n := range workers {
		f.s.start(func() { f.live(ctx, n) })
	}
}

// live is a worker with all its lives.
func (f *fleet) live(ctx context.Context, n int) {
	for {
		life, cancel := context.WithCancel(ctx)
		f.set(n, cancel)
		f.work(life, n+1)
		f.set(n, nil)
		cancel()
		if ctx.Err() != nil {
			return
		}
		f.tell(n+1, time.Now().Add(killedFor))
		if !sleep(ctx, killedFor) {
			return
		}
		f.tell(n+1, time.Time{})
	}
}

func (f *fleet) tell(number int, back time.Time) {
	f.s.tell(func(m *table.Model, now time.Time) *table.Entry { return m.Worker(now, number, back) })
}

func (f *fleet) set(n int, kill context.CancelFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kill[n] = kill
}

// killOne ends the life of one worker, in turn, and reports whether there was one to end.
func (f *fleet) killOne() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range workers {
		n := f.next
		f.next = (f.next + 1) % workers
		if f.kill[n] != nil {
			f.kill[n]()
			f.kill[n] = nil
			return true
		}
	}
	return false
}

// work is one life of a worker.
func (f *fleet) work(ctx context.Context, number int) {
	c, err := f.s.world.client("worker")
	if err != nil {
		f.s.note("", "worker %d: %v", number, err)
		<-ctx.Done()
		return
	}
	defer func() { _ = c.Close() }()
	var wg sync.WaitGroup
	for _, cr := range samples() {
		j := &job{fleet: f, client: c, number: number, credential: cr, poke: make(chan struct{}, 1)}
		wg.Go(func() {
			defer f.s.rescue()
			j.subscribe(ctx)
		})
		wg.Go(func() {
			defer f.s.rescue()
			j.run(ctx)
		})
	}
	wg.Wait()
}

// job is what a worker does with one credential.
type job struct {
	fleet      *fleet
	client     *client.Client
	number     int
	credential credential
	poke       chan struct{} // a fresh token came
	silentTill time.Time     // a further report would be of no use
}

// subscribe has the client know each fresh token. Errors are of what may yet come alive, or end the subscription: the token is then
// asked for.
func (j *job) subscribe(ctx context.Context) {
	for u, err := range j.client.Subscribe(ctx, j.credential.name) {
		if err == nil && u.Token != nil {
			select {
			case j.poke <- struct{}{}:
			default:
			}
		}
	}
}

// run calls the API with every fresh token, and in between.
func (j *job) run(ctx context.Context) {
	timer := time.NewTimer(useEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.poke:
		case <-timer.C:
		}
		j.once(ctx)
		timer.Reset(useEvery)
	}
}

// once calls the API, and reports a token that it refused.
func (j *job) once(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t, err := j.client.Token(ctx, j.credential.name)
	if err != nil {
		return // the table shows why
	}
	status := j.use(ctx, t)
	if ctx.Err() != nil {
		return
	}
	u := table.Use{Worker: j.number, Credential: j.credential.name, Generation: t.Generation, Status: status}
	j.fleet.s.tell(func(m *table.Model, now time.Time) *table.Entry { return m.Used(now, u) })
	if status != http.StatusUnauthorized || time.Now().Before(j.silentTill) {
		return
	}
	_, wait, err := j.client.ReportRejected(ctx, j.credential.name, t, status)
	if err != nil {
		wait = useEvery
	}
	j.silentTill = time.Now().Add(wait)
}

// use calls the sandbox's API with a token and returns the HTTP status; 0 without an answer.
func (j *job) use(ctx context.Context, t tokenbroker.Token) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://sandbox.example/"+j.credential.issuer+"/resource", nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", t.Type+" "+t.AccessToken.Reveal())
	resp, err := j.fleet.s.world.sandbox.RoundTrip(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
