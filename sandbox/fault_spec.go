package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Duration is a time.Duration that is written as Go writes it: "90s", "1h30m".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q is not of a form like 90s or 1h30m", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// FaultSpec is a fault as scenarios, the control endpoint and tokenctl sandbox fault write it: a kind, see [FaultKinds], and
// the fields of [Fault] by the same names, which the kind fills in where they are not given.
type FaultSpec struct {
	Issuer string `json:"issuer,omitempty" yaml:"issuer"`
	Kind   string `json:"kind,omitempty" yaml:"kind"` // "" = the fields alone

	Code        string `json:"code,omitempty" yaml:"code"`               // of kinds that answer with an error
	Description string `json:"description,omitempty" yaml:"description"` // error_description

	Name        string            `json:"name,omitempty" yaml:"name"`
	Endpoint    Endpoint          `json:"endpoint,omitempty" yaml:"endpoint"`
	GrantType   string            `json:"grant_type,omitempty" yaml:"grant_type"`
	ClientID    string            `json:"client_id,omitempty" yaml:"client_id"`
	Bearer      Bearer            `json:"bearer,omitempty" yaml:"bearer"`
	Times       int               `json:"times,omitempty" yaml:"times"`
	Chance      float64           `json:"chance,omitempty" yaml:"chance"`
	AfterCommit bool              `json:"after_commit,omitempty" yaml:"after_commit"`
	Delay       Duration          `json:"delay,omitempty" yaml:"delay"`
	DelayTo     Duration          `json:"delay_to,omitempty" yaml:"delay_to"`
	Life        Duration          `json:"life,omitempty" yaml:"life"`
	Skew        Duration          `json:"skew,omitempty" yaml:"skew"`
	Status      int               `json:"status,omitempty" yaml:"status"`
	Header      map[string]string `json:"header,omitempty" yaml:"header"`
	RetryAfter  Duration          `json:"retry_after,omitempty" yaml:"retry_after"`
	RetryDate   Duration          `json:"retry_date,omitempty" yaml:"retry_date"`
	Redirect    string            `json:"redirect,omitempty" yaml:"redirect"`
	Body        string            `json:"body,omitempty" yaml:"body"`
	Expires     ExpiryForm        `json:"expires,omitempty" yaml:"expires"`
	Set         map[string]any    `json:"set,omitempty" yaml:"set"`
	Omit        []string          `json:"omit,omitempty" yaml:"omit"`
	Truncate    int               `json:"truncate,omitempty" yaml:"truncate"`
	Drip        Duration          `json:"drip,omitempty" yaml:"drip"`
}

// Fault returns what the words mean, or what is wrong with them. Whether it can happen at an issuer shows in [Server.Try].
func (s FaultSpec) Fault() (Fault, error) {
	kind, ok := faultKinds()[s.Kind]
	if !ok {
		return Fault{}, fmt.Errorf("no kind of fault %q: there are %q", s.Kind, FaultKinds())
	}
	f := s.plain()
	if (s.Code != "" || s.Description != "") && !kind.code {
		return Fault{}, fmt.Errorf("kind %q takes no code and no description", s.Kind)
	}
	if err := kind.fill(&f, s); err != nil {
		return Fault{}, fmt.Errorf("kind %q: %w", s.Kind, err)
	}
	f.Name = cmp.Or(f.Name, s.Kind)
	return f, nil
}

// plain is the fault without its kind.
func (s FaultSpec) plain() Fault {
	f := Fault{
		Name: s.Name, Endpoint: s.Endpoint, GrantType: s.GrantType, ClientID: s.ClientID, Bearer: s.Bearer, Times: s.Times, Chance: s.Chance,
		Delay: time.Duration(s.Delay), DelayTo: time.Duration(s.DelayTo), Life: time.Duration(s.Life), Skew: time.Duration(s.Skew),
		Status: s.Status, Header: maps.Clone(s.Header), RetryAfter: time.Duration(s.RetryAfter), RetryDate: time.Duration(s.RetryDate),
		Redirect: s.Redirect, Body: s.Body, Expires: s.Expires, Set: maps.Clone(s.Set), Omit: slices.Clone(s.Omit),
		Truncate: s.Truncate, Drip: time.Duration(s.Drip),
	}
	if s.AfterCommit {
		f.Stage = AfterCommit
	}
	return f
}

// Try is [Server.Fail] for faults that come from outside: what can't be is an error.
func (s *Server) Try(issuer string, faults ...Fault) error {
	i := s.issuers[issuer]
	if i == nil {
		return fmt.Errorf("no issuer %q", issuer)
	}
	faults = slices.Clone(faults)
	var errs []error
	for n := range faults {
		faults[n].Endpoint = cmp.Or(faults[n].Endpoint, EndpointToken)
		if err := faults[n].validate(i); err != nil {
			errs = append(errs, fmt.Errorf("fault %d (%s): %w", n+1, faults[n].label(), err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, f := range faults {
		i.script = append(i.script, &scripted{Fault: f, left: cmp.Or(f.Times, 1)})
	}
	return nil
}
