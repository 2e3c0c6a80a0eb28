package main

import (
	"errors"
	"slices"

	"github.com/tokenbroker/tokenbroker/bench/sample"
)

// Result is a run, as -out writes it.
type Result struct {
	Conditions Conditions `json:"conditions"`
	Errors     int        `json:"errors"` // replies that were not right; the figures of a run that has some mean nothing
	Figures    []Figure   `json:"figures"`

	first error // of the errors
}

// Figure is one quantity of one subject.
type Figure struct {
	Measure  string        `json:"measure"`
	Quantity string        `json:"quantity"`
	Unit     string        `json:"unit"`
	Subject  string        `json:"subject"`
	Value    sample.Spread `json:"value"`
	Ratios   []Ratio       `json:"ratios,omitempty"`
}

// Ratio compares a figure with that of another subject, round by round.
type Ratio struct {
	To    string        `json:"to"`
	Value sample.Spread `json:"value"`
	Goal  float64       `json:"goal,omitempty"` // the median is to be at most this; 0 = no goal
}

// The subjects, as tables call them.
const (
	reference  = "reference"
	tuned      = "tuned"
	tunedAgain = "tuned, again" // the A/A pair: what it differs from tuned is noise
	product    = "product"
)

// series is a quantity of each subject, round by round.
type series map[string][]float64

// order is that of the tables.
func (s series) order() []string {
	var names []string
	for _, n := range []string{reference, tuned, tunedAgain, product} {
		if len(s[n]) > 0 {
			names = append(names, n)
		}
	}
	return names
}

// failed counts replies that were not right.
func (r *Result) failed(n int, err error) {
	r.Errors += n
	r.first = errors.Join(r.first, err)
}

// add adds a quantity. goals are for the product, by the subject that it is compared with.
func (r *Result) add(measure, quantity, unit string, s series, goals map[string]float64) {
	for _, name := range s.order() {
		f := Figure{Measure: measure, Quantity: quantity, Unit: unit, Subject: name, Value: sample.Of(s[name])}
		for _, to := range compared(name) {
			if ratios := sample.Ratios(s[name], s[to]); len(ratios) > 0 {
				ratio := Ratio{To: to, Value: sample.Of(ratios)}
				if name == product {
					ratio.Goal = goals[to]
				}
				f.Ratios = append(f.Ratios, ratio)
			}
		}
		r.Figures = append(r.Figures, f)
	}
}

// compared says with whom a subject is compared.
func compared(name string) []string {
	switch name {
	case tuned:
		return []string{reference}
	case tunedAgain:
		return []string{tuned}
	case product:
		return []string{tuned, reference}
	}
	return nil
}

// quantities keeps several series of one measure in the order in which they were first seen.
type quantities struct {
	names  []string
	units  map[string]string
	series map[string]series // quantity → series
}

func newQuantities() *quantities {
	return &quantities{units: map[string]string{}, series: map[string]series{}}
}

// note notes one value of one round.
func (q *quantities) note(quantity, unit, subject string, value float64) {
	if !slices.Contains(q.names, quantity) {
		q.names = append(q.names, quantity)
		q.units[quantity], q.series[quantity] = unit, series{}
	}
	q.series[quantity][subject] = append(q.series[quantity][subject], value)
}

// into adds them all to a result. goals are those of the first quantity.
func (q *quantities) into(r *Result, measure string, goals map[string]float64) {
	for i, name := range q.names {
		if i > 0 {
			goals = nil
		}
		r.add(measure, name, q.units[name], q.series[name], goals)
	}
}
