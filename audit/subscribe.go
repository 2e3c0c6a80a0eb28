package audit

// Subscribe returns a channel that gets a token after records were written; one token may stand for many. The writer never waits for
// whoever watches. stop ends it.
func (l *Log) Subscribe() (wake <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribers[c] = struct{}{}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subscribers, c)
	}
}

// wakeLocked gives each watcher a token, unless it has one.
func (l *Log) wakeLocked() {
	for c := range l.subscribers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
