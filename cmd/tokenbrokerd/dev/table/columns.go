package table

import (
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// columns is how wide each column is; 0 = left out.
type columns struct {
	name, state, generation, bar, subscribers, last int
}

const (
	secondsWidth = 4 // " 12s"
	markWidth    = 3 // "›1 "
)

// columns fits the table into a width: what is of least use goes first.
func (m *Model) columns(width int) columns {
	c := columns{name: m.nameWidth(), state: 11}
	if width < narrow {
		c.name = min(c.name, max(6, width-markWidth-c.state-secondsWidth-2))
		return c
	}
	c.generation, c.subscribers, c.bar = 4, 4, 6+max(0, width-80)/6
	if width >= 100 {
		c.state, c.generation = 13, 6
	}
	c.bar = min(c.bar, 24)
	if width < 76 {
		c.generation = 0
	}
	if width < 68 {
		c.name = min(c.name, 20)
	}
	c.last = max(0, width-c.fixed())
	return c
}

// fixed is what all columns but the last take, with the blanks between.
func (c columns) fixed() int {
	n := markWidth + c.name + 1 + c.state + 1 + secondsWidth + 1
	for _, w := range []int{c.generation, c.subscribers} {
		if w > 0 {
			n += w + 1
		}
	}
	return n + c.bar
}

func (c columns) header() line {
	s := "   " + pad("CREDENTIAL", c.name) + " " + pad("STATE", c.state) + " "
	if c.generation > 0 {
		s += right("GEN", c.generation) + " "
	}
	if c.bar == 0 {
		return faint(s + "LIFE")
	}
	return faint(s + pad("LIFE LEFT", c.bar+secondsWidth) + " " + right("SUBS", c.subscribers) + " LAST EVENT")
}

func (c columns) row(n int, r row, chosen bool, now time.Time) line {
	mark, name := " ", plain
	if chosen {
		mark, name = "›", bold
	}
	l := line{{mark + pad(place(n), 2), name}, {pad(r.name, c.name), name}, {" ", plain},
		{pad(string(r.state), c.state), styleOf(r.state)}, {" ", plain}}
	if c.generation > 0 {
		l = append(l, piece{right(fmt.Sprint(r.generation), c.generation) + " ", plain})
	}
	left, text := r.life(now)
	if c.bar == 0 {
		return append(l, piece{right(text, secondsWidth), lifeStyle(r.state)})
	}
	l = append(l, piece{bar(left, r.expiry.Sub(r.since), c.bar), lifeStyle(r.state)}, piece{right(text, secondsWidth) + " ", plain})
	l = append(l, piece{right(number(r.subscribers), c.subscribers) + " ", plain})
	what, st := r.event(now)
	return append(l, piece{what, st})
}

// place is the key that chooses a row, if there is one.
func place(n int) string {
	if n > 9 {
		return ""
	}
	return number(n)
}

// life is how long a row's token lives yet, also in words.
func (r row) life(now time.Time) (time.Duration, string) {
	left := r.expiry.Sub(now)
	switch {
	case r.expiry.IsZero():
		return 0, "–"
	case left >= 100*time.Hour:
		return left, fmt.Sprintf("%dd", int(left.Hours()/24))
	case left >= 100*time.Minute:
		return left, fmt.Sprintf("%dh", int(left.Hours()))
	case left >= 100*time.Second:
		return left, fmt.Sprintf("%dm", int(left.Minutes()))
	}
	return left, fmt.Sprintf("%ds", seconds(left))
}

// event is what is to be said of a row now.
func (r row) event(now time.Time) (string, style) {
	if wait := now.Sub(r.asking); !r.asking.IsZero() && wait >= time.Second {
		return fmt.Sprintf("asking the provider, %ds", int(wait.Seconds())), cyan
	}
	st := styleOf(r.lastState)
	if r.lastState == tokenbroker.StateReady {
		st = plain
	}
	return again(r.last, r.next, now), st
}
