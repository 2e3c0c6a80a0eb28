package sample_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenbroker/tokenbroker/bench/sample"
)

func TestSpreadIsTheMedianAndTheRange(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values []float64
		want   sample.Spread
	}{
		{"nothing", nil, sample.Spread{}},
		{"one", []float64{3}, sample.Spread{Median: 3, Min: 3, Max: 3, N: 1}},
		{"an odd number, out of order", []float64{9, 1, 2}, sample.Spread{Median: 2, Min: 1, Max: 9, N: 3}},
		{"an even number", []float64{4, 1, 2, 100}, sample.Spread{Median: 3, Min: 1, Max: 100, N: 4}},
		{"below zero", []float64{-1, -3}, sample.Spread{Median: -2, Min: -3, Max: -1, N: 2}},
	} {
		if got := sample.Of(tc.values); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestSpreadLeavesItsValuesAsTheyWere(t *testing.T) {
	values := []float64{3, 1, 2}
	sample.Of(values)
	if diff := cmp.Diff([]float64{3, 1, 2}, values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

func TestRatiosAreRoundByRound(t *testing.T) {
	// The second round was disturbed for both: the ratio is not.
	got := sample.Ratios([]float64{10, 100, 30}, []float64{5, 50, 10})
	if diff := cmp.Diff([]float64{2, 2, 3}, got); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
}

func TestRatiosLeaveOutRoundsThatLackASide(t *testing.T) {
	for _, tc := range []struct {
		name   string
		of, by []float64
		want   []float64
	}{
		{"nothing to divide", nil, []float64{1}, nil},
		{"nothing to divide by", []float64{1}, nil, nil},
		{"a round more", []float64{4, 6}, []float64{2}, []float64{2}},
		{"nought to divide by", []float64{4, 6}, []float64{0, 2}, []float64{3}},
	} {
		if diff := cmp.Diff(tc.want, sample.Ratios(tc.of, tc.by)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestQuantileIsByNearestRank(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	for q, want := range map[float64]int{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		if got := sample.Quantile(hundred, q); got != want {
			t.Errorf("quantile %v of 1 to 100: got %d, want %d", q, got, want)
		}
	}
	if got := sample.Quantile([]int(nil), 0.5); got != 0 {
		t.Errorf("of nothing: got %d, want 0", got)
	}
	if got := sample.Quantile([]int{7}, 0.99); got != 7 {
		t.Errorf("of one: got %d, want 7", got)
	}
}

func TestMergeIsTheMedianOfMediansWithinTheWholeRange(t *testing.T) {
	got := sample.Merge([]sample.Spread{
		{Median: 3, Min: 2, Max: 9, N: 7}, {Median: 1, Min: 0.5, Max: 4, N: 7}, {Median: 2, Min: 1, Max: 3, N: 5}})
	if want := (sample.Spread{Median: 2, Min: 0.5, Max: 9, N: 19}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := sample.Merge(nil); got != (sample.Spread{}) {
		t.Errorf("of nothing: got %+v", got)
	}
}
