package mtls

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// defaultInterval is how often Watch looks if it is not told: often enough for certificates that live an hour.
const defaultInterval = 10 * time.Second

// Files names the PEM files of a [Source]. All three are required. Replace them by rename, so that nobody reads half a file.
type Files struct {
	Cert string // a leaf certificate, then the intermediates that lead to its CA
	Key  string // the leaf's private key, not encrypted; open to its owner alone (mode 0600 or 0400)
	CA   string // the CA certificates that peers are verified against; they need not include the leaf's own
}

// Source holds a certificate, its key and a CA bundle, and swaps all three at once when their files change. It is safe
// for concurrent use.
type Source struct {
	files   Files
	reload  sync.Mutex // one Reload at a time, so that a slow one can't undo a newer; handshakes never take it
	current atomic.Pointer[material]
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
// bundle without a valid CA) it returns an error, and what was in use stays. So it does when the files are the same
// and their certificate has ended meanwhile.
func (s *Source) Reload() (changed bool, err error) {
	s.reload.Lock()
	defer s.reload.Unlock()
	old := s.current.Load()
	next, err := s.files.load(old)
	if err != nil {
		return false, err
	}
	if err := next.check(time.Now()); err != nil {
		return false, err
	}
	s.current.Store(next)
	return next != old, nil
}

// Watch reloads every interval until ctx is done; 0 or less means 10 s. It calls notify, from its own goroutine, with nil when new
// files are in use or when files that had a problem are good again, and with the error when there is a problem: once,
// until the problem changes. A problem is looked at again at each interval, so that a pair caught half-written heals.
func (s *Source) Watch(ctx context.Context, interval time.Duration, notify func(error)) {
	watch(ctx, interval, s.Reload, notify)
}

// watch is Watch over any reload.
func watch(ctx context.Context, interval time.Duration, reload func() (bool, error), notify func(error)) {
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
