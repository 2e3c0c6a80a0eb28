package table

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	narrow = 60 // columns under which only the essentials are shown
	low    = 20 // lines under which the parts stand without space between them
)

// View shows a model as lines, at most height of them and none longer than width.
func (m *Model) View(width, height int, now time.Time, colour bool) []string {
	width, height = max(width, 1), max(height, 1)
	head, foot := m.head(width, height, now), m.foot(width, height)
	head = head[:min(len(head), height)]
	foot = foot[max(0, len(foot)-(height-len(head))):]
	room := height - len(head) - len(foot)
	lines := slices.Concat(head, m.tail(room))
	for len(lines) < height-len(foot) {
		lines = append(lines, nil)
	}
	out := make([]string, 0, height)
	for _, l := range append(lines, foot...) {
		out = append(out, l.render(width, colour))
	}
	return out
}

// head is the title, the table and the workers.
func (m *Model) head(width, height int, now time.Time) []line {
	lines := []line{m.title(width, now)}
	gap := func() {
		if height >= low {
			lines = append(lines, nil)
		}
	}
	gap()
	cols := m.columns(width)
	lines = append(lines, cols.header())
	first, last := m.window(height)
	for i := first; i < last; i++ {
		lines = append(lines, cols.row(i+1, m.rows[i], m.rows[i].name == m.rows[m.index()].name, now))
	}
	if len(m.rows) == 0 {
		lines = append(lines, faint("  no credential yet"))
	}
	if height >= low/2 {
		gap()
		if len(m.workers) > 0 {
			lines = append(lines, m.fleet(now))
		}
		if height >= low {
			lines = append(lines, m.sums(width))
		}
		gap()
	}
	return lines
}

// window is which rows there is room for, with the chosen one among them.
func (m *Model) window(height int) (first, last int) {
	room := max(1, height-4)
	if height >= low {
		room = max(4, height-15)
	}
	n := len(m.rows)
	first = max(0, min(m.index()-room/2, n-room))
	return first, min(n, first+room)
}

func (m *Model) title(width int, now time.Time) line {
	l := line{{" tokenbroker dev ", invert}, {" " + m.Title, plain}}
	if m.away != "" {
		l = line{{" tokenbroker dev ", invert}, {" " + m.away, yellow}}
	}
	clock := now.Format(time.TimeOnly) + " "
	if space := width - l.width() - len(clock); space > 0 {
		l = append(l, piece{strings.Repeat(" ", space) + clock, dim})
	}
	return l
}

// fleet tells of the workers.
func (m *Model) fleet(now time.Time) line {
	l := line{{"   workers", dim}}
	for _, w := range m.workers {
		switch {
		case !w.back.IsZero():
			l = append(l, piece{fmt.Sprintf("  %d ○ killed, back in %ds", w.number, seconds(w.back.Sub(now))), yellow})
		case !w.called:
			l = append(l, piece{fmt.Sprintf("  %d ○", w.number), dim})
		case now.Sub(w.refusedAt) < 2*time.Second:
			l = append(l, piece{fmt.Sprintf("  %d ● API says %d", w.number, w.status), red})
		default:
			l = append(l, piece{fmt.Sprintf("  %d ", w.number), plain}, piece{"●", green}, piece{" API says 200", plain})
		}
	}
	return l
}

// sums tells what was counted.
func (m *Model) sums(width int) line {
	t := m.totals
	s := fmt.Sprintf("   %s, %d failed", count(t.Exchanges, "exchange"), t.Failed)
	if m.most > 1 {
		s += fmt.Sprintf(" · at the most, 1 served %d waiters", m.most)
	}
	if width >= 100 {
		s += fmt.Sprintf(" · %s pushed to subscribers", count(t.Pushed, "message"))
	}
	if width >= 130 && t.Used > 0 {
		s += fmt.Sprintf(" · %s, %d refused", count(t.Used, "API call"), t.Refused)
	}
	return faint(s)
}

// tail is the newest entries that a room holds, the newest last.
func (m *Model) tail(room int) []line {
	var lines []line
	for i := len(m.entries) - 1; i >= 0 && len(lines) < room; i-- {
		if e := m.entries[i]; !e.Quiet {
			l := line{{" " + e.At.Format(time.TimeOnly) + " ", dim}}
			if e.Credential != "" {
				l = append(l, piece{pad(e.Credential, m.nameWidth()) + "  ", plain})
			}
			lines = append([]line{append(l, piece{e.Text, styleOf(e.State)})}, lines...)
		}
	}
	return lines
}

// foot is how to join in, and the keys.
func (m *Model) foot(width, height int) []line {
	var lines []line
	if height >= low {
		lines = append(lines, faint(strings.Repeat("─", width)))
	}
	for i, j := range m.Join {
		if i == 0 || height >= low {
			lines = append(lines, line{{" " + j, plain}})
		}
	}
	if width < narrow || height < low {
		return append(lines, faint(" ↑↓ f r c l s n k d  h help  q quit"))
	}
	return append(lines, wrap(legend(), width)...)
}

// legend is the keys and what they do.
func legend() [][2]string {
	return [][2]string{{"↑↓", "choose"}, {"f", "fail"}, {"l", "429"}, {"s", "slow"}, {"r", "revoke"}, {"c", "consent"},
		{"n", "50 callers"}, {"k", "kill a worker"}, {"d", "drain"}, {"h", "how to join, keys"}, {"q", "quit"}}
}

func wrap(keys [][2]string, width int) (lines []line) {
	var l line
	for _, k := range keys {
		item := line{{" ", plain}, {k[0], bold}, {" " + k[1] + " ", dim}}
		if l.width()+item.width() > width {
			lines, l = append(lines, l), nil
		}
		l = append(l, item...)
	}
	return append(lines, l)
}

func (m *Model) nameWidth() int {
	n := 10
	for _, r := range m.rows {
		n = max(n, len(r.name))
	}
	return min(n, 32)
}

// bar shows what is left of a whole in cells, in eighths.
func bar(left, whole time.Duration, cells int) string {
	if whole <= 0 {
		return strings.Repeat("░", cells)
	}
	eighths := int(float64(max(0, min(left, whole))) / float64(whole) * float64(cells*8))
	full, part := eighths/8, eighths%8
	s := strings.Repeat("█", full)
	if part > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[part-1])
	}
	return s + strings.Repeat("░", cells-len([]rune(s)))
}

func number(n int) string { return strconv.Itoa(n) }

// lifeStyle warns of a token that ends, in a state that brings no other.
func lifeStyle(s tokenbroker.State) style {
	if s == tokenbroker.StateReady {
		return green
	}
	return styleOf(s)
}
