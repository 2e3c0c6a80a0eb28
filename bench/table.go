package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenbroker/tokenbroker/bench/sample"
)

// tableOf prints the results in files.
func tableOf(out io.Writer, files []string) error {
	if len(files) == 0 {
		return errors.New("table: name the files that -out wrote")
	}
	var results []Result
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r Result
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		results = append(results, r)
	}
	return table(out, results)
}

// table prints results as Markdown: conditions, then a table per measure. Of several results it prints the median of their medians, and
// the range over all rounds of all of them.
func table(out io.Writer, results []Result) error {
	var b strings.Builder
	for i, r := range results {
		c := r.Conditions
		fmt.Fprintf(&b, "Run %d: %s, commit %s, %s, %s, %d CPUs, GOMAXPROCS %d, load average %s before and %s after, %d wrong replies.", i+1,
			c.Time.Format("2006-01-02 15:04 MST"), c.Commit, c.Go, c.System, c.CPUs, c.GOMAXPROCS, c.LoadBefore, c.LoadAfter, r.Errors)
		for _, m := range slices.Sorted(maps.Keys(c.Modules)) {
			fmt.Fprintf(&b, " %s %s.", m, c.Modules[m])
		}
		if c.Short {
			b.WriteString(" A short run: its figures mean nothing.")
		}
		b.WriteString("\n\n")
	}
	measure := ""
	for _, f := range merge(results) {
		if f.Measure != measure {
			measure = f.Measure
			fmt.Fprintf(&b, "\n**%s**\n\n| | | median (range) | ratio to |\n|---|---|---|---|\n", measure)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.Quantity, f.Subject, span(f.Value, f.Unit), ratios(f.Ratios))
	}
	_, err := io.WriteString(out, strings.TrimLeft(b.String(), "\n"))
	return err
}

// merge makes one list of figures of several, in the order of the first.
func merge(results []Result) []Figure {
	type key struct{ measure, quantity, subject string }
	var order []key
	all := map[key][]Figure{}
	for _, r := range results {
		for _, f := range r.Figures {
			k := key{f.Measure, f.Quantity, f.Subject}
			if all[k] == nil {
				order = append(order, k)
			}
			all[k] = append(all[k], f)
		}
	}
	var merged []Figure
	for _, k := range order {
		merged = append(merged, mergeFigures(all[k]))
	}
	return merged
}

// mergeFigures makes one of the same figure of several runs.
func mergeFigures(runs []Figure) Figure {
	f := runs[0]
	var values []sample.Spread
	ratios := make([][]sample.Spread, len(f.Ratios))
	for _, r := range runs {
		values = append(values, r.Value)
		for i, ratio := range r.Ratios[:min(len(ratios), len(r.Ratios))] {
			ratios[i] = append(ratios[i], ratio.Value)
		}
	}
	f.Value = sample.Merge(values)
	f.Ratios = slices.Clone(f.Ratios)
	for i := range f.Ratios {
		f.Ratios[i].Value = sample.Merge(ratios[i])
	}
	return f
}

// span prints a median with its range.
func span(s sample.Spread, unit string) string {
	text := digits(s.Median)
	if s.N > 1 {
		text += " (" + digits(s.Min) + "–" + digits(s.Max) + ")"
	}
	if unit == "" {
		return text
	}
	return text + " " + unit
}

func ratios(list []Ratio) string {
	var parts []string
	for _, r := range list {
		text := fmt.Sprintf("%s ×%.2f (%.2f–%.2f)", r.To, r.Value.Median, r.Value.Min, r.Value.Max)
		switch {
		case r.Goal == 0:
		case r.Value.Median <= r.Goal:
			text += fmt.Sprintf(", goal ≤ ×%.2f met", r.Goal)
		default:
			text += fmt.Sprintf(", goal ≤ ×%.2f **missed**", r.Goal)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// digits prints a number with three significant digits, or all of those before the point.
func digits(x float64) string {
	if x >= 100 || x <= -100 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}
