package load

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/net/http2/hpack"
)

// grace is how long calls may take that are in flight when the time is over.
const grace = 30 * time.Second

// Plan is what calls to make on a connection.
type Plan struct {
	Method   string
	Request  []byte
	InFlight int                // calls at once, each followed by the next
	For      time.Duration      // how long new calls are begun; each of the InFlight is begun once in any case
	Check    func([]byte) error // what is wrong with a reply
}

// Result is what came of the calls.
type Result struct {
	Calls     int             // that were answered, well or not
	Errors    int             // of them
	First     error           // of the errors
	Latencies []time.Duration // of those that went well
}

// Add adds what came of other calls.
func (r *Result) Add(o Result) {
	r.Calls += o.Calls
	r.Errors += o.Errors
	r.First = errors.Join(r.First, o.First)
	r.Latencies = append(r.Latencies, o.Latencies...)
}

// caller makes the calls of a plan.
type caller struct {
	*Conn
	plan    Plan
	until   time.Time
	pending map[uint32]*call // stream → call
	result  Result
}

type call struct {
	began    time.Time
	buf      []byte
	messages int
	err      error
}

// Call makes the calls of a plan. An error means that the connection is of no use any more.
func (c *Conn) Call(p Plan) (Result, error) {
	if err := c.raw.SetDeadline(time.Now().Add(p.For + grace)); err != nil {
		return Result{}, err
	}
	cl := &caller{Conn: c, plan: p, until: time.Now().Add(p.For), pending: map[uint32]*call{}}
	for range p.InFlight {
		if err := cl.begin(&call{}); err != nil {
			return cl.result, err
		}
	}
	for len(cl.pending) > 0 {
		if err := c.read(events{data: cl.data, end: cl.end}); err != nil {
			return cl.result, fmt.Errorf("%d calls in flight: %w", len(cl.pending), err)
		}
	}
	return cl.result, c.out.Flush()
}

func (cl *caller) begin(one *call) error {
	*one = call{began: time.Now(), buf: one.buf[:0]}
	id, err := cl.request(cl.plan.Method, cl.plan.Request, hpack.HeaderField{Name: "grpc-timeout", Value: "30S"}) // as our own client does
	cl.pending[id] = one
	return err
}

func (cl *caller) data(stream uint32, data []byte) error {
	one := cl.pending[stream]
	if one == nil {
		return fmt.Errorf("data on stream %d, which is over", stream)
	}
	one.buf = append(one.buf, data...)
	msg, rest, err := message(one.buf)
	if err != nil || msg == nil {
		return err
	}
	one.messages++
	one.err = errors.Join(one.err, cl.plan.Check(msg))
	one.buf = one.buf[:copy(one.buf, rest)]
	return nil
}

func (cl *caller) end(stream uint32, status string) error {
	one := cl.pending[stream]
	if one == nil {
		return nil // a reset after the end
	}
	delete(cl.pending, stream)
	now := time.Now()
	if one.err == nil && (status != "0" || one.messages != 1) {
		one.err = fmt.Errorf("ended with grpc-status %q after %d messages", status, one.messages)
	}
	cl.result.Calls++
	if one.err != nil {
		cl.result.Errors++
		if cl.result.First == nil {
			cl.result.First = one.err
		}
	} else {
		cl.result.Latencies = append(cl.result.Latencies, now.Sub(one.began))
	}
	if now.Before(cl.until) {
		return cl.begin(one)
	}
	return nil
}
