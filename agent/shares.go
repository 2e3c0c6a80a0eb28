package agent

import (
	"fmt"
	"sync"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	maxTokensPerUser = 512
	restFor          = 10 * time.Second // a token that its user did not ask for in this time gives its place to another one of his
)

// shares bounds how many different tokens each user has in use: as many (credential, scopes, subject, audience) as are in use have a place in the
// agent's streams at the broker, which all users share. Who wants more gives up the one that he did not ask for longest; who asks for
// all of them all the time is refused.
type shares struct {
	most   int
	forget func(*question) // has the client keep a token fresh no more

	mu      sync.Mutex
	uids    map[uint32]map[string]*use // uid → credential and variant → use
	holders map[string]int             // credential and variant → how many users have it
}

// use is a token that a user uses, or did.
type use struct {
	question
	now  int       // calls and streams that are about it now
	last time.Time // when the last of them ended
	had  bool      // one of them had the token
}

func newShares(most int, forget func(*question)) *shares {
	return &shares{most: most, forget: forget, uids: map[uint32]map[string]*use{}, holders: map[string]int{}}
}

// claim gives a token a place in its user's share, until release and for a while afterwards if it was had. It is an error if there is none.
func (s *shares) claim(q *question) (release func(had bool), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid, key := q.peer.UID, holderOf(q).variant
	if s.uids[uid] == nil {
		s.uids[uid] = map[string]*use{}
	}
	u := s.uids[uid][key]
	if u == nil {
		if len(s.uids[uid]) >= s.most && !s.evictLocked(uid) {
			return nil, s.crowded()
		}
		u = &use{question: *q}
		s.uids[uid][key] = u
		s.holders[key]++
	}
	u.now++
	return func(had bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		u.now--
		u.last, u.had = time.Now(), u.had || had
	}, nil
}

func (s *shares) crowded() error {
	return &tokenbroker.Problem{Err: tokenbroker.ErrTooMany, RetryAfter: restFor, Detail: fmt.Sprintf("different tokens of this user are in use at "+
		"this agent, which may be %d: ask for fewer different scopes, subjects and audiences, or for each of them less often", s.most)}
}

// evictLocked takes the token out of a user's share that has rested for longest, if one has.
func (s *shares) evictLocked(uid uint32) bool {
	key, oldest := "", (*use)(nil)
	for k, u := range s.uids[uid] {
		if rests := u.now == 0 && (!u.had || time.Since(u.last) >= restFor); rests && (oldest == nil || u.last.Before(oldest.last)) {
			key, oldest = k, u
		}
	}
	if oldest == nil {
		return false
	}
	delete(s.uids[uid], key)
	if s.holders[key]--; s.holders[key] == 0 {
		delete(s.holders, key)
		s.forget(&oldest.question)
	}
	return true
}

// claim is shares.claim; the log is told of who has no place left, as jobs that subscribe are told no more than that they are too many.
func (a *Agent) claim(q *question) (release func(had bool), err error) {
	if release, err = a.shares.claim(q); err != nil {
		a.crowd.Do(func() {
			a.cfg.Log.Warn("a user has as many different tokens in use as one may have: he gets no further ones", "uid", q.peer.UID, "most", a.shares.most)
		})
	}
	return release, err
}
