package sandbox

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Entry is one request in the journal. It holds no token and no secret.
type Entry struct {
	Time         time.Time // of arrival
	Host         string    // that the request named; tells a redirect that was followed
	Issuer       string    // "" = no such issuer or endpoint
	Endpoint     Endpoint
	GrantType    string // "" = none that the endpoint knows
	ClientID     string // as claimed, whether or not it proved it; "" = none that is registered
	RefreshToken string // Fingerprint of the refresh token sent, "" = none
	Fault        string // of the fault that met the request: its Name, else its String; "" = none
	Processed    bool   // the rules ran, and what they changed stands; false also while the request is under way
	Status       int    // HTTP status sent; 0 = none: under way, hanging, dropped, or the client left
	Code         string // OAuth error code, "" = none
}

// Filter selects requests. An empty field means any.
type Filter struct {
	Issuer     string
	Endpoint   Endpoint
	GrantType  string
	ClientID   string
	Fault      string
	Status     int
	Code       string
	Unanswered bool // only those with Status 0
}

// Journal returns the newest requests in order of arrival, at most [Config.JournalSize].
func (s *Server) Journal() []Entry { return s.journal.list() }

// Count returns how many requests matched since the server was made, including those that Journal has forgotten and
// those under way.
func (s *Server) Count(f Filter) int { return s.journal.count(f) }

// tally is what requests are counted by. None of it is free text from a client, so that the number of tallies is bounded
// by the configuration and the script.
type tally struct {
	issuer    string
	endpoint  Endpoint
	grantType string
	clientID  string
	fault     string
	status    int
	code      string
}

func (e Entry) tally() tally {
	return tally{e.Issuer, e.Endpoint, e.GrantType, e.ClientID, e.Fault, e.Status, e.Code}
}

func (f Filter) matches(t tally) bool {
	return accepts(f.Issuer, t.issuer) && accepts(f.Endpoint, t.endpoint) && accepts(f.GrantType, t.grantType) &&
		accepts(f.ClientID, t.clientID) && accepts(f.Fault, t.fault) && accepts(f.Status, t.status) &&
		accepts(f.Code, t.code) && (!f.Unanswered || t.status == 0)
}

func accepts[T comparable](want, got T) bool {
	var none T
	return want == none || want == got
}

type journal struct {
	mu     sync.Mutex
	size   int
	ring   []*Entry
	next   int           // where the next entry goes once the ring is full
	counts map[tally]int // every request since the beginning
}

func newJournal(size int) *journal {
	return &journal{size: size, counts: map[tally]int{}}
}

// open records a request on arrival, so that one that hangs can be seen hanging.
func (j *journal) open(e Entry) *Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts[e.tally()]++
	if len(j.ring) < j.size {
		j.ring = append(j.ring, &e)
		return &e
	}
	j.ring[j.next] = &e
	j.next = (j.next + 1) % j.size
	return &e
}

// close says how the request ended.
func (j *journal) close(e *Entry, status int, code string, processed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.counts[e.tally()]--; j.counts[e.tally()] == 0 {
		delete(j.counts, e.tally())
	}
	e.Status, e.Code, e.Processed = status, code, processed
	j.counts[e.tally()]++
}

func (j *journal) list() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	entries := make([]Entry, 0, len(j.ring))
	for _, e := range slices.Concat(j.ring[j.next:], j.ring[:j.next]) {
		entries = append(entries, *e)
	}
	return entries
}

func (j *journal) count(f Filter) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for t, c := range j.counts {
		if f.matches(t) {
			n += c
		}
	}
	return n
}

// entry describes a request as it arrived.
func (v *visit) entry() Entry {
	e := Entry{Time: v.now, Host: v.request.Host, Endpoint: v.endpoint, GrantType: v.grantType(), ClientID: v.clientID()}
	if e.Host == "" {
		e.Host = v.request.URL.Host
	}
	if v.issuer != nil {
		e.Issuer = v.issuer.Name
	}
	if t := v.form.get("refresh_token"); t != "" {
		e.RefreshToken = Fingerprint(t)
	}
	if v.fault != nil {
		e.Fault = v.fault.label()
	}
	return e
}

func (v *visit) grantType() string {
	g := v.form.get("grant_type")
	if _, ok := grants()[g]; v.endpoint != EndpointToken || !ok {
		return ""
	}
	return g
}

func (v *visit) clientID() string {
	if v.issuer == nil {
		return ""
	}
	id := v.form.get("client_id")
	if v.endpoint.authenticates() {
		who, e := v.claim()
		if e != nil {
			return ""
		}
		id = cmp.Or(who.id, v.bearerID())
	}
	if v.issuer.clients[id] == nil && v.issuer.services[id] == nil {
		return ""
	}
	return id
}

// bearerID is whom the assertion of a GrantJWTBearer is from, as it says.
func (v *visit) bearerID() string {
	if v.grantType() != GrantJWTBearer {
		return ""
	}
	a, err := readAssertion(v.form.get("assertion"))
	if err != nil {
		return ""
	}
	return a.Issuer
}
