package sandbox

import (
	"sync/atomic"
	"time"
)

// clock is the server's idea of time: the machine's, moved by what Advance added up.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// Advance moves the server's clock, forward or back, and with it every life, window and Date header. Delays are not
// affected: they pass in real time, or in that of a testing/synctest bubble.
func (s *Server) Advance(by time.Duration) { s.clock.offset.Add(int64(by)) }

// Now is what the server takes the time to be.
func (s *Server) Now() time.Time { return s.clock.now() }
