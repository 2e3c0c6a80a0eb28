package daemon

import (
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	"github.com/tokenbroker/tokenbroker/server"
)

// maxCredentialSeries bounds the time series that carry a credential's name.
const maxCredentialSeries = 1000

// metrics is what /metrics shows. No label holds a secret, and none a text that a caller or a provider can choose freely.
type metrics struct {
	registry *prometheus.Registry
	calls    *calls

	refreshes  *prometheus.CounterVec
	took       *prometheus.HistogramVec
	waiters    *prometheus.HistogramVec
	rejected   *prometheus.CounterVec
	deliveries prometheus.Counter
	trouble    *prometheus.CounterVec
	denials    *prometheus.CounterVec
	audits     *prometheus.CounterVec
	streams    prometheus.Gauge
	conns      prometheus.Gauge
	refused    *prometheus.CounterVec
	shedding   prometheus.Gauge
	expiry     *prometheus.GaugeVec
	states     *prometheus.GaugeVec
	policyTime prometheus.Gauge
	skew       *prometheus.GaugeVec

	revocations *prometheus.CounterVec
	cuts        *prometheus.CounterVec

	checkpointFailures prometheus.Counter

	mu     sync.Mutex
	shown  map[string]bool              // credentials that have a series
	stands map[string]tokenbroker.State // credential → state, for the count by state
}

// newMetrics makes the metrics. Three of them ask when they are read: certificateExpiry, auditErr, which says why the audit log can't
// be written, and policyErr, which says what is wrong with the policy file; a file that is put back as it was brings no new policy that
// could tell.
func newMetrics(version string, certificateExpiry func() time.Time, policyErr, auditErr func() error) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), shown: map[string]bool{}, stands: map[string]tokenbroker.State{},
		calls: newCalls()}
	provider := []string{"provider"}
	m.refreshes = counters("refresh_total", "Token requests by how they ended.", "provider", "outcome")
	m.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tokenbroker_refresh_duration_seconds",
		Help: "How long token requests took, with the store.", Buckets: prometheus.ExponentialBuckets(0.01, 2.5, 10)}, provider)
	m.waiters = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tokenbroker_refresh_waiters",
		Help: "Callers that one token request served.", Buckets: []float64{0, 1, 2, 5, 10, 50, 100, 500, 1000, 10000}}, provider)
	m.rejected = counters("token_reported_rejected_total", "Reports of tokens that a resource server refused, by its status.", "provider", "status")
	m.deliveries = prometheus.NewCounter(prometheus.CounterOpts{Name: "tokenbroker_stream_deliveries_total",
		Help: "States handed to subscribers' slots."})
	m.trouble = counters("trouble_total", "Things that an operator should look at: commit_error, orphan, tampered, expiring, secret_expiring, audit_deleted.", "kind")
	m.denials = counters("denied_total", "Calls that the policy denied.", "action", "reason")
	m.audits = counters("policy_audit_mode_total", "Calls and selectors that only a rule in audit mode lets pass.", "rule", "action")
	m.streams = gauge("streams", "Subscriptions open now.")
	m.conns = gauge("connections", "Connections open now, also those that have not said who they are.")
	m.refused = counters("connections_refused_total", "Connections that were refused or cut, by why.", "reason")
	m.shedding = gauge("shedding", "0 while there is memory, 1 while new connections and subscriptions are refused, 2 while also tokens are that would have to be fetched.")
	m.expiry = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tokenbroker_credential_token_expiry_timestamp_seconds",
		Help: "When the newest token of a credential's own variant expires, for at most 1000 credentials."}, []string{"credential"})
	m.states = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tokenbroker_credentials",
		Help: "Credentials, by the state of their own variant."}, []string{"state"})
	m.skew = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tokenbroker_clock_skew_seconds",
		Help: "How far the broker's clock is ahead of a provider's, as the last reply had it."}, provider)
	m.revocations = counters("revocations_total", "Tries to end a grant at the provider, by how they ended.", "provider", "outcome")
	m.cuts = counters("connections_cut_total", "Connections cut because the peer's certificate ended, was denied or is not trusted any more.", "reason")
	m.policyTime = gauge("policy_last_reload_timestamp_seconds", "When the policy in force was loaded.")
	m.register(version, certificateExpiry, policyErr, auditErr)
	m.policyLoaded()
	return m
}

func (m *metrics) register(version string, certificateExpiry func() time.Time, policyErr, auditErr func() error) {
	m.registry.MustRegister(m.calls.collectors()...)
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "tokenbroker_build_info", Help: "Always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	build.Set(1)
	certificate := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tokenbroker_tls_certificate_expiry_timestamp_seconds",
		Help: "When the broker's own certificate expires."}, func() float64 { return float64(certificateExpiry().Unix()) })
	policyGood := good("policy_last_reload_successful", "1 if the policy file holds what is in force, else 0.", policyErr)
	auditGood := good("audit_healthy", "1 if the audit log can be written, else 0: nothing is handed out.", auditErr)
	m.registry.MustRegister(m.refreshes, m.took, m.waiters, m.rejected, m.deliveries, m.trouble, m.denials, m.audits, m.streams, m.conns, m.refused, m.shedding,
		m.expiry, m.states, m.skew, m.revocations, m.cuts, m.policyTime, policyGood, auditGood, build, certificate,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tokenbroker_" + name, Help: help}, labels)
}

// good is 1 while there is no error.
func good(name, help string, err func() error) prometheus.GaugeFunc {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tokenbroker_" + name, Help: help}, func() float64 {
		if err() != nil {
			return 0
		}
		return 1
	})
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tokenbroker_" + name, Help: help})
}

func (m *metrics) stream() []grpc.StreamServerInterceptor {
	count := interceptors.StreamServerInterceptor(m.calls)
	return []grpc.StreamServerInterceptor{func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if !known(info.FullMethod) {
			return next(srv, ss)
		}
		return count(srv, ss, info, next)
	}}
}

// known reports whether there is such a method. Calls of any other arrive as streams under a name that the caller made up, which must
// not become a label.
func known(method string) bool {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	_, is := found.(protoreflect.MethodDescriptor)
	return err == nil && is
}

// edge is server.Config.Edge.
func (m *metrics) edge() server.Edge {
	return server.Edge{
		Open:    func(n int) { m.conns.Set(float64(n)) },
		Refused: func(reason server.RefusedReason) { m.refused.WithLabelValues(string(reason)).Inc() },
		Shed:    func(level int) { m.shedding.Set(float64(level)) },
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// observe is broker.Config.Observe.
func (m *metrics) observe(ev broker.Event) {
	switch ev.Kind {
	case broker.EventExchange:
		m.refreshes.WithLabelValues(ev.Provider, outcome(ev.Class)).Inc()
		m.took.WithLabelValues(ev.Provider).Observe(ev.Took.Seconds())
		m.waiters.WithLabelValues(ev.Provider).Observe(float64(ev.Waiters))
	case broker.EventDeliver:
		m.deliveries.Add(float64(len(ev.Streams)))
	case broker.EventReport:
		m.rejected.WithLabelValues(ev.Provider, strconv.Itoa(ev.HTTPStatus)).Inc()
	case broker.EventCommitErr, broker.EventOrphan, broker.EventTampered, broker.EventExpiring, broker.EventSecret:
		m.trouble.WithLabelValues(string(ev.Kind)).Inc()
	case broker.EventState:
		m.stand(ev)
	case broker.EventForgotten:
		m.forget(ev.Credential)
		return
	case broker.EventClockSkew:
		m.skew.WithLabelValues(ev.Provider).Set(ev.Skew.Seconds())
		return
	case broker.EventRevoked:
		m.revocations.WithLabelValues(ev.Provider, string(ev.Revocation)).Inc()
	case broker.EventIntent, broker.EventAdopted:
	}
	if ev.Own && !ev.Expiry.IsZero() {
		m.expires(ev)
	}
}

// stand counts a credential under its new state.
func (m *metrics) stand(ev broker.Event) {
	if !ev.Own {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.stands[ev.Credential]; ok {
		m.states.WithLabelValues(string(old)).Dec()
	}
	m.stands[ev.Credential] = ev.State
	m.states.WithLabelValues(string(ev.State)).Inc()
}

func (m *metrics) expires(ev broker.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.shown[ev.Credential] {
		if len(m.shown) >= maxCredentialSeries {
			return
		}
		m.shown[ev.Credential] = true
	}
	m.expiry.WithLabelValues(ev.Credential).Set(float64(ev.Expiry.Unix()))
}

func (m *metrics) forget(credential string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.stands[credential]; ok {
		m.states.WithLabelValues(string(old)).Dec()
		delete(m.stands, credential)
	}
	delete(m.shown, credential)
	m.expiry.DeleteLabelValues(credential)
}

func (m *metrics) opened(streams int) { m.streams.Set(float64(streams)) }

func (m *metrics) denied(action policy.Action, reason string) {
	m.denials.WithLabelValues(string(action), reason).Inc()
}

// audited is server.Config.Audited. Whoever writes the policy names its rules.
func (m *metrics) audited(rule string, action policy.Action) {
	m.audits.WithLabelValues(rule, string(action)).Inc()
}

// watchCheckpoints shows how checkpoints of the audit log get to their second place; nil = they have none.
func (m *metrics) watchCheckpoints(w *audit.Witness) {
	m.checkpointFailures = prometheus.NewCounter(prometheus.CounterOpts{Name: "tokenbroker_audit_checkpoint_failures_total",
		Help: "Tries to bring a checkpoint of the audit log to its second place that failed."})
	if w == nil {
		return
	}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tokenbroker_audit_checkpoints_waiting",
		Help: "Checkpoints of the audit log that have yet to get to their second place."}, func() float64 {
		n, _ := w.Waiting()
		return float64(n)
	})
	m.registry.MustRegister(m.checkpointFailures, waiting)
}

func (m *metrics) wasCut(reason string) { m.cuts.WithLabelValues(reason).Inc() }

// watchIdentity shows how certificates and the deny list stand.
func (m *metrics) watchIdentity(i *identity) {
	good := func(what string, err func() error) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tokenbroker_tls_last_reload_successful",
			Help: "1 if what is in use is what files and workload API say, else 0.", ConstLabels: prometheus.Labels{"what": what}},
			func() float64 {
				if err() != nil {
					return 0
				}
				return 1
			}))
	}
	good("certificates", i.tls.Err)
	if i.admin != nil {
		good("admin", i.admin.Err)
	}
	if i.deny != nil {
		good("deny_list", i.deny.Err)
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tokenbroker_tls_denied_certificates",
			Help: "Lines of the deny list in force."}, func() float64 { return float64(i.deny.Len()) }))
	}
}

func (m *metrics) policyLoaded() { m.policyTime.SetToCurrentTime() }
