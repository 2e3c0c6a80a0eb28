package store

import (
	"context"
	"sync"
)

// lanes lets one writer of a name in at a time, so that writers of one process do not refute each other's compares. It
// saves work; that nothing is lost rests on the compares alone.
type lanes struct {
	mu sync.Mutex
	m  map[string]*lane // name → who is in it or waits
}

type lane struct {
	seat  chan struct{}
	users int
}

// enter waits for the name to be free. The caller calls leave when done.
func (l *lanes) enter(ctx context.Context, name string) (leave func(), err error) {
	ln := l.use(name)
	select {
	case ln.seat <- struct{}{}:
		return func() {
			<-ln.seat
			l.drop(name, ln)
		}, nil
	case <-ctx.Done():
		l.drop(name, ln)
		return nil, ctx.Err()
	}
}

func (l *lanes) use(name string) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[string]*lane{}
	}
	ln := l.m[name]
	if ln == nil {
		ln = &lane{seat: make(chan struct{}, 1)}
		l.m[name] = ln
	}
	ln.users++
	return ln
}

func (l *lanes) drop(name string, ln *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln.users--; ln.users == 0 {
		delete(l.m, name)
	}
}
