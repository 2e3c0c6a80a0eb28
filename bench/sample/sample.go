// Package sample is the arithmetic of measurements: medians, quantiles, and ratios of what was measured side by side.
package sample

import (
	"cmp"
	"slices"
)

// Spread is a median and the range around it.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// Of summarizes values; the zero Spread of none.
func Of(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(values))
	return Spread{Median: middle(s), Min: s[0], Max: s[len(s)-1], N: len(s)}
}

func middle(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// Ratios divides round by round, so that what disturbs a whole round disturbs no ratio. Rounds that lack one side, or have 0 to divide
// by, are left out.
func Ratios(of, by []float64) []float64 {
	var ratios []float64
	for i := range min(len(of), len(by)) {
		if by[i] != 0 {
			ratios = append(ratios, of[i]/by[i])
		}
	}
	return ratios
}

// Quantile is the value below which the share q of the values lies (nearest rank); the zero value of none. It sorts them.
func Quantile[T cmp.Ordered](values []T, q float64) T {
	if len(values) == 0 {
		var none T
		return none
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

// Merge summarizes the summaries of several runs: the median of the medians, within the range of them all.
func Merge(runs []Spread) Spread {
	if len(runs) == 0 {
		return Spread{}
	}
	var medians []float64
	all := runs[0]
	all.N = 0
	for _, r := range runs {
		medians = append(medians, r.Median)
		all.Min, all.Max, all.N = min(all.Min, r.Min), max(all.Max, r.Max), all.N+r.N
	}
	all.Median = Of(medians).Median
	return all
}
