package fleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// issued is a token as the provider knows it.
type issued struct {
	secret     string
	credential string
	asked      time.Time // when the request for it came
	at, ends   time.Time
	dead       time.Time // when it was revoked or condemned; zero = not
	lost       bool      // with a broker that was killed: nobody could ever get it
}

// until is when a token stops being good.
func (i *issued) until() time.Time {
	if !i.dead.IsZero() && i.dead.Before(i.ends) {
		return i.dead
	}
	return i.ends
}

// ledger is what the provider and the resource server know of all tokens, and when the broker was in reach.
type ledger struct {
	mu     sync.Mutex
	tokens map[string]*issued   // token → what it is
	of     map[string][]*issued // credential → its tokens, oldest first
	ups    []span               // of the broker; the last one may have no end
	kills  []time.Time          // of the broker, in the midst of whatever it did
}

// span is a stretch of time.
type span struct{ from, to time.Time }

func newLedger() *ledger { return &ledger{tokens: map[string]*issued{}, of: map[string][]*issued{}} }

// watch notes what a token endpoint issues, before anybody gets it.
func (l *ledger) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/token") {
			next.ServeHTTP(w, r)
			return
		}
		asked := time.Now()
		copied := &copying{ResponseWriter: w}
		next.ServeHTTP(copied, r)
		l.issue(copied.body.Bytes(), asked)
		_, _ = w.Write(copied.body.Bytes())
	})
}

// copying keeps a reply back.
type copying struct {
	http.ResponseWriter
	body bytes.Buffer
}

// Write implements io.Writer.
func (c *copying) Write(b []byte) (int, error) { return c.body.Write(b) }

func (l *ledger) issue(reply []byte, asked time.Time) {
	var t struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
		Scope       string `json:"scope"`
	}
	if json.Unmarshal(reply, &t) != nil || t.AccessToken == "" {
		return
	}
	now := time.Now()
	one := &issued{secret: t.AccessToken, credential: "example/" + strings.TrimSuffix(t.Scope, ".read"), asked: asked, at: now,
		ends: now.Add(time.Duration(t.ExpiresIn) * time.Second)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens[one.secret] = one
	l.of[one.credential] = append(l.of[one.credential], one)
}

// find is what is known of a token; false if it is not good now.
func (l *ledger) find(secret string) (issued, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.tokens[secret]
	if one == nil {
		return issued{}, false
	}
	return *one, time.Now().Before(one.until())
}

// newest is the newest token of a credential, and how many there were.
func (l *ledger) newest(credential string) (issued, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.of[credential]
	if len(all) == 0 {
		return issued{}, 0
	}
	return *all[len(all)-1], len(all)
}

// lived reports whether one of the tokens of a credential, from the n-th on, reached an age before there was another one.
func (l *ledger) lived(credential string, n int, age time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.of[credential]
	for i := n; i+1 < len(all); i++ {
		if all[i+1].asked.Sub(all[i].at) >= age {
			return true
		}
	}
	return false
}

// kill ends a token.
func (l *ledger) kill(secret string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.tokens[secret]; one.dead.IsZero() {
		one.dead = time.Now()
	}
}

// up notes that the broker is in reach from now on.
func (l *ledger) up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ups = append(l.ups, span{from: time.Now()})
}

// down notes that it is not any more.
func (l *ledger) down(killed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.ups[len(l.ups)-1].to = now
	if killed {
		l.kills = append(l.kills, now)
	}
}

// upAt reports whether the broker was in reach, and since when.
func (l *ledger) upAt(t time.Time) (since time.Time, up bool) {
	for _, s := range l.ups {
		if !t.Before(s.from) && (s.to.IsZero() || t.Before(s.to)) {
			return s.from, true
		}
	}
	return time.Time{}, false
}

// good reports whether who made a request had a good token at a time, or could have had one. Who remembers tokens needs the broker once
// per token, for as long as that travels, everybody else needs it now. A token that this request was refused with is none of its own any more,
// however good it is to others. When there is no good token, one can be had as soon as the floor allows: it doubles once for a token that came
// of a report and was reported again.
func (l *ledger) good(o outcome, refused map[string]time.Time, t time.Time, travel time.Duration) bool {
	since, up := l.upAt(t)
	free := since
	for _, one := range l.of[o.credential] {
		if one.at.After(t) {
			break
		}
		if one.lost {
			continue
		}
		until := one.until()
		if at, ok := refused[one.secret]; ok && at.Before(until) {
			until = at
		}
		if free.Before(until) {
			free = until
		}
		if t.Before(until) && (up || o.remembers && l.reached(one, t, travel)) {
			return true
		}
	}
	return up && t.Sub(free) > 2*floor
}

// reached reports whether the broker was in reach for as long as a token travels, from when that was there to a time.
func (l *ledger) reached(one *issued, t time.Time, travel time.Duration) bool {
	for _, s := range l.ups {
		from, to := s.from, s.to
		if from.Before(one.at) {
			from = one.at
		}
		if to.IsZero() || to.After(t) {
			to = t
		}
		if to.Sub(from) >= travel {
			return true
		}
	}
	return false
}

// spans are the times when the broker was in reach.
func (l *ledger) spans(began time.Time) string {
	var all []string
	for _, s := range l.ups {
		to := "the end"
		if !s.to.IsZero() {
			to = s.to.Sub(began).Round(10 * time.Millisecond).String()
		}
		all = append(all, fmt.Sprintf("from %v to %s", s.from.Sub(began).Round(10*time.Millisecond), to))
	}
	return strings.Join(all, ", ")
}
