package agent

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// about is a question of a user.
func about(uid uint32, subject int) *question {
	return &question{peer: Peer{UID: uid}, credential: "example/api", subject: strconv.Itoa(subject)}
}

func TestWhatAUserDoesNotAskForGivesItsPlaceToWhatHeDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var forgotten []string
		s := newShares(3, func(q *question) { forgotten = append(forgotten, q.subject) })
		ask := func(uid uint32, subject int, had bool) error {
			release, err := s.claim(about(uid, subject))
			if err == nil {
				release(had)
			}
			return err
		}
		for subject := range 3 {
			if err := ask(1, subject, true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if err := errors.Join(ask(2, 1, true), ask(1, 0, true)); err != nil {
			t.Errorf("another user, and what is in use: got %v, want a place", err)
		}
		if err := ask(1, 3, true); !errors.Is(err, tokenbroker.ErrTooMany) {
			t.Errorf("a fourth while all are in use: got %v, want ErrTooMany", err)
		}
		time.Sleep(restFor)
		for subject := 3; subject < 6; subject++ { // in place of 1, 2 and 0, which was asked for again
			if err := ask(1, subject, subject != 4); err != nil {
				t.Errorf("one more when the others have rested: got %v, want a place", err)
			}
		}
		if want := []string{"2", "0"}; !slices.Equal(forgotten, want) {
			t.Errorf("got %v forgotten, want %v: somebody else uses 1", forgotten, want)
		}
		if err := ask(1, 7, true); err != nil || !slices.Contains(forgotten, "4") {
			t.Errorf("in place of one that there is not: got %v, forgotten %v", err, forgotten)
		}
	})
}

func TestWhatIsUnderWayKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares(2, func(*question) {})
		first, err := s.claim(about(1, 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.claim(about(1, 2)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if _, err := s.claim(about(1, 3)); !errors.Is(err, tokenbroker.ErrTooMany) {
			t.Errorf("beside two that are under way: got %v, want ErrTooMany", err)
		}
		first(false)
		if _, err := s.claim(about(1, 3)); err != nil {
			t.Errorf("when one has ended: got %v, want a place", err)
		}
	})
}
