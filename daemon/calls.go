package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/server"
)

// calls counts RPCs under the names that everybody knows them by. Each method's series are looked up once, not for every call and every
// message of a stream.
type calls struct {
	started  *prometheus.CounterVec
	handled  *prometheus.CounterVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	took     *prometheus.HistogramVec

	mu      sync.RWMutex
	methods map[methodKey]*methodCalls
}

type methodKey struct {
	typ             interceptors.GRPCType
	service, method string
}

// methodCalls are the series of one method. It implements interceptors.Reporter, for all streams of the method, and server.Meter.
type methodCalls struct {
	of                      *calls
	key                     methodKey
	started, received, sent prometheus.Counter
	took                    prometheus.Observer
	ok                      func() prometheus.Counter // once there is one
}

func newCalls() *calls {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grpc_server_" + name, Help: help},
			append([]string{"grpc_type", "grpc_service", "grpc_method"}, labels...))
	}
	return &calls{
		started:  vec("started_total", "RPCs begun."),
		handled:  vec("handled_total", "RPCs ended, by how.", "grpc_code"),
		received: vec("msg_received_total", "Messages received."),
		sent:     vec("msg_sent_total", "Messages sent."),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "grpc_server_handling_seconds", Help: "How long RPCs took.",
			Buckets: prometheus.DefBuckets}, []string{"grpc_type", "grpc_service", "grpc_method"}),
		methods: map[methodKey]*methodCalls{},
	}
}

// collectors are what has to be registered.
func (c *calls) collectors() []prometheus.Collector {
	return []prometheus.Collector{c.started, c.handled, c.received, c.sent, c.took}
}

// ServerReporter implements interceptors.ServerReportable.
func (c *calls) ServerReporter(ctx context.Context, m interceptors.CallMeta) (interceptors.Reporter, context.Context) {
	r := c.method(methodKey{m.Typ, m.Service, m.Method})
	r.started.Inc()
	return r, ctx
}

// unary is server.Config.Meter.
func (c *calls) unary(method string) server.Meter {
	m := interceptors.NewServerCallMeta(method, nil, nil)
	return c.method(methodKey{interceptors.Unary, m.Service, m.Method})
}

func (c *calls) method(key methodKey) *methodCalls {
	c.mu.RLock()
	m := c.methods[key]
	c.mu.RUnlock()
	if m != nil {
		return m
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.methods[key]; m != nil {
		return m
	}
	labels := []string{string(key.typ), key.service, key.method}
	m = &methodCalls{of: c, key: key, started: c.started.WithLabelValues(labels...), received: c.received.WithLabelValues(labels...),
		sent: c.sent.WithLabelValues(labels...), took: c.took.WithLabelValues(labels...)}
	m.ok = sync.OnceValue(func() prometheus.Counter { return m.code(codes.OK) })
	c.methods[key] = m
	return m
}

func (m *methodCalls) code(c codes.Code) prometheus.Counter {
	return m.of.handled.WithLabelValues(string(m.key.typ), m.key.service, m.key.method, c.String())
}

// Began implements server.Meter.
func (m *methodCalls) Began() {
	m.started.Inc()
	m.received.Inc() // whoever is called has the request
}

// Ended implements server.Meter.
func (m *methodCalls) Ended(err error, took time.Duration) {
	m.PostMsgSend(nil, err, took)
	m.PostCall(err, took)
}

// PostCall implements interceptors.Reporter.
func (m *methodCalls) PostCall(err error, took time.Duration) {
	if err == nil {
		m.ok().Inc()
	} else {
		m.code(status.Code(err)).Inc()
	}
	m.took.Observe(took.Seconds())
}

// PostMsgSend implements interceptors.Reporter.
func (m *methodCalls) PostMsgSend(_ any, err error, _ time.Duration) {
	if err == nil {
		m.sent.Inc()
	}
}

// PostMsgReceive implements interceptors.Reporter.
func (m *methodCalls) PostMsgReceive(_ any, err error, _ time.Duration) {
	if err == nil {
		m.received.Inc()
	}
}
