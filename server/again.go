package server

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/broker"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/usage"
)

// A worker asks for the same token over and over. What was decided, found and recorded for it is remembered by its connection, and holds
// for the same question as long as all that it followed from is the same: the policy, the credential with its grant, and the token. Then
// everything would come out as it did; whenever anything is not the same, the call goes the whole way.

// maxRemembered bounds how many questions a connection remembers.
const maxRemembered = 64

// question is what a GetToken asks, but for the scopes one by one.
type question struct{ credential, scopes, subject, audience string }

func questionOf(r *tokenbrokerv1.GetTokenRequest) question {
	return question{r.GetCredential(), strings.Join(r.GetScopes(), " "), r.GetSubject(), r.GetAudience()}
}

// given is how a question was answered.
type given struct {
	scopes []string // asked; more exact than those of the question
	policy *policy.Policy
	token  broker.Repeat
	use    usage.Use
	record audit.Record // the same again, but for what differs from call to call
}

// memory is what a connection was given.
type memory struct {
	mu    sync.Mutex
	given map[question]*given
}

func (m *memory) recall(q question) *given {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.given[q]
}

// keep remembers an answer, in place of the one to the same question, or of any other if there are too many.
func (m *memory) keep(q question, g *given) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.given == nil {
		m.given = map[question]*given{}
	}
	if _, ok := m.given[q]; !ok && len(m.given) >= maxRemembered {
		for other := range m.given {
			delete(m.given, other)
			break
		}
	}
	m.given[q] = g
}

// again answers a GetToken as the one before it, and records that. It is false, and nothing was done, if the call has to be decided anew.
func (s *Server) again(peer *caller, in incoming) (resp any, ok bool, err error) {
	r, ok := in.req.(*tokenbrokerv1.GetTokenRequest)
	if !ok {
		return nil, false, nil
	}
	least, err := minValidityOf(r)
	if err != nil {
		return nil, false, nil //nolint:nilerr // the handler refuses it
	}
	g := peer.memory.recall(questionOf(r))
	if g == nil || g.policy != s.cfg.Policy() || !slices.Equal(g.scopes, r.GetScopes()) {
		return nil, false, nil
	}
	snap, ok := s.cfg.Broker.Again(g.token, least, in.began)
	if !ok {
		return nil, false, nil
	}
	record := g.record
	record.RequestID, record.Time = requestID(), time.Now()
	record.Latency = record.Time.Sub(in.began)
	if err := s.owe(peer, record); err != nil {
		return nil, true, err
	}
	g.use.Mark(record.Time)
	return encodedOf(snap).getWire, true, nil
}

// owe records an answer. While the log is prompt the answer goes on its way at once, and its connection keeps it back until the record is
// written; otherwise it waits here, where it can still become an error.
func (s *Server) owe(peer *caller, r audit.Record) error {
	if s.cfg.AuditLate != nil {
		if receipt, ok := s.cfg.AuditLate(r); ok {
			peer.debt.add(receipt)
			return nil
		}
	}
	return s.cfg.Audit(context.Background(), r) // as in record, whoever leaves keeps nothing from being written
}

// remember lets the same question be answered again as the call was. It has to have been allowed by one and the same policy, by a rule
// that does not end by itself, and nothing of the credential may have changed since the call came in.
func (s *Server) remember(c *call, in incoming) {
	r, ok := in.req.(*tokenbrokerv1.GetTokenRequest)
	if !ok || c.given == nil || !c.decision.Allowed || c.decision.Mode != policy.ModeEnforce || c.policy != c.entered {
		return
	}
	token, ok := c.given.Repeat(c.edition)
	if !ok {
		return
	}
	record := c.record
	record.Prepare()
	c.memory.keep(questionOf(r), &given{scopes: r.GetScopes(), policy: c.policy, token: token, record: record,
		use: s.cfg.Usage.Use(c.given.Credential, c.Identity, c.decision.Rule)})
}
