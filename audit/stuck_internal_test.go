package audit

import (
	"io"
	"testing"
	"time"
)

// TestOnlyASinkThatHangsIsStuck has a Run that is long back from the sink and did not come to say so, as behind thousands of callers.
func TestOnlyASinkThatHangsIsStuck(t *testing.T) {
	l := New(io.Discard, Options{})
	l.running, l.began = true, time.Now().Add(-time.Minute)
	if err := l.Healthy(); err != nil {
		t.Errorf("back from the sink: got %v, want a log that takes records", err)
	}
	g := &group{since: time.Now().Add(-3 * time.Second)}
	if left := l.patienceLocked(g, time.Now(), maxPatience*l.opts.Deadline); left <= 0 {
		t.Errorf("back from the sink: callers may wait for %v more, want some time", left)
	}
	l.inSink.Store(true)
	if l.Healthy() == nil {
		t.Error("a sink that has hung for a minute is healthy")
	}
	if left := l.patienceLocked(g, time.Now(), maxPatience*l.opts.Deadline); left > 0 {
		t.Errorf("the sink hangs: callers may wait for %v more, want none", left)
	}
}
