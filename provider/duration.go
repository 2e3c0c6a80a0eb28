package provider

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

const day = 24 * time.Hour

// Duration is a time.Duration that is written as Go writes it, with days in front if there are any: "90s", "12h",
// "180d", "1d12h". A bare number is refused, since its unit would be a guess.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	rest, days := s, int64(0)
	if head, tail, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(head, 10, 32)
		if err != nil || n > uint64(math.MaxInt64/day) {
			return fmt.Errorf("duration %q is not of a form like 90s, 12h, 180d or 1d12h", s)
		}
		rest, days = tail, int64(n)
	}
	var part time.Duration
	if rest != "" || days == 0 && rest == s {
		var err error
		if part, err = time.ParseDuration(rest); err != nil || isNumber(rest) {
			return fmt.Errorf("duration %q is not of a form like 90s, 12h, 180d or 1d12h", s)
		}
	}
	sum := time.Duration(days)*day + part
	if days > 0 && (part < 0 || sum < 0) {
		return fmt.Errorf("duration %q is out of range", s)
	}
	*d = Duration(sum)
	return nil
}

// UnmarshalYAML reads a duration of a file. Its errors know their place and key, which those of UnmarshalText could not.
func (d *Duration) UnmarshalYAML(n ast.Node) error {
	var text string
	if err := yaml.NodeToValue(n, &text); err != nil {
		text = ""
	}
	if err := d.UnmarshalText([]byte(text)); err != nil {
		return &yaml.SyntaxError{Message: strings.TrimPrefix(n.GetPath(), "$.") + ": " + err.Error(), Token: n.GetToken()}
	}
	return nil
}

// isNumber reports whether s has no unit: time.ParseDuration takes "0" without one, which is clear enough.
func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil && s != "0"
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes d in the form that UnmarshalText reads.
func (d Duration) String() string {
	t := time.Duration(d)
	if t < day {
		return t.String()
	}
	if t%day == 0 {
		return fmt.Sprintf("%dd", t/day)
	}
	return fmt.Sprintf("%dd%s", t/day, t%day)
}
