package mtls

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// defaultInterval is how often Watch looks if it is not told: often enough for certificates that live an hour.
const defaultInterval = 10 * time.Second

// Source holds a certificate, its key and the bundles that peers are verified against, and swaps all of them at once when there are new
// ones. They come from files ([Open]) or from the SPIFFE Workload API ([OpenWorkload]). It is safe for concurrent use.
type Source struct {
	files    Files
	api      *workload  // nil = all from files
	reload   sync.Mutex // one Reload at a time, so that a slow one can't undo a newer; handshakes never take it
	current  atomic.Pointer[material]
	revision atomic.Uint64 // rises with each swap
	problem  atomic.Pointer[error]
}

// Open reads the files. It refuses what [Source.Reload] refuses.
func Open(files Files) (*Source, error) {
	s := &Source{files: files}
	if _, err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files again and reports whether what they hold is new and now in use. If anything is wrong with them
// (missing, damaged, a key that does not fit, a key file that others may read, a certificate that is not valid now, a CA
// bundle without a valid CA, what does not fit a listener) it returns an error, and what was in use stays. So it does when the files are the same
// and their certificate has ended meanwhile.
//
// With the Workload API it looks at what that said last, and at the bundle files if there are any. That the API does not answer is
// an error, and keeps nothing else from being taken up.
func (s *Source) Reload() (changed bool, err error) {
	s.reload.Lock()
	defer s.reload.Unlock()
	defer func() { s.problem.Store(&err) }()
	old := s.current.Load()
	next, err := s.load(old)
	if err == nil {
		err = errors.Join(next.check(time.Now()), s.widens(old, next))
	}
	var away error
	if s.api != nil {
		away = s.api.trouble()
	}
	if err != nil {
		return false, errors.Join(err, away)
	}
	if next != old {
		s.current.Store(next)
		s.revision.Add(1)
	}
	return next != old, away
}

// widens refuses to have the CA file of a listener vouch for more trust domains than it did, for want of a name in a new certificate.
func (s *Source) widens(old, next *material) error {
	if !s.files.Listens || old == nil || old.trust.rest != nil || next.trust.rest == nil {
		return nil
	}
	return fmt.Errorf("%s: certificate has no SPIFFE ID, unlike the one in use, and the CA file would vouch for every trust domain by it: "+
		"issue it with a SPIFFE ID, or start anew if that is meant", next.from)
}

func (s *Source) load(old *material) (*material, error) {
	if s.api != nil {
		return s.api.load(old, s.files)
	}
	return s.files.load(old)
}

// Err says what is wrong with what would be in use next; nil if nothing is.
func (s *Source) Err() error {
	if p := s.problem.Load(); p != nil {
		return *p
	}
	return nil
}

// Watch reloads every interval until ctx is done; 0 or less means 10 s. It calls notify, from its own goroutine, with nil when new
// files are in use or when files that had a problem are good again, and with the error when there is a problem: once,
// until the problem changes. A problem is looked at again at each interval, so that a pair caught half-written heals.
//
// With the Workload API it also listens to that, and takes up what it says as it comes.
func (s *Source) Watch(ctx context.Context, interval time.Duration, notify func(error)) {
	if s.api == nil {
		watch(ctx, interval, nil, s.Reload, notify)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.api.follow(ctx) })
	watch(ctx, interval, s.api.news, s.Reload, notify)
}

// watch is Watch over any reload, which also happens whenever there is news.
func watch(ctx context.Context, interval time.Duration, news <-chan struct{}, reload func() (bool, error), notify func(error)) {
	if interval <= 0 {
		interval = defaultInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-tick.C:
		}
		changed, err := reload()
		problem := ""
		if err != nil {
			problem = err.Error()
		}
		if changed || problem != told {
			notify(err)
		}
		told = problem
	}
}

// Expiry is when the first certificate of the chain in use ends.
func (s *Source) Expiry() time.Time { return firstEnd(s.current.Load().chain) }

// Fingerprint is the SHA-256 of the leaf certificate in use, in lower-case hex.
func (s *Source) Fingerprint() string { return fingerprint(s.current.Load().chain[0]) }
