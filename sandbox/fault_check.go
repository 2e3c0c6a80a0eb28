package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

const noFault = "none"

// validate refuses a fault that could not happen as it is written.
func (f Fault) validate(i *issuer) error {
	breaks := f.Drop || f.Refuse
	edits := f.edits()
	answers := f.replaces() || edits || len(f.Header) > 0 || f.RetryAfter > 0 || f.RetryDate > 0 || f.Truncate != 0 || f.Drip > 0
	switch {
	case f.Times < Forever:
		return fmt.Errorf("times is %d", f.Times)
	case f.Stage != BeforeProcessing && f.Stage != AfterCommit:
		return fmt.Errorf("no stage %d", f.Stage)
	case min(f.Delay, f.DelayTo, f.RetryAfter, f.RetryDate, f.Drip, f.Life) < 0:
		return errors.New("a duration is negative")
	case f.DelayTo > 0 && f.DelayTo < f.Delay:
		return errors.New("DelayTo is less than Delay")
	case f.Life%time.Second != 0:
		return errors.New("a life is in whole seconds")
	case f.Chance < 0 || f.Chance > 1:
		return fmt.Errorf("chance %v is not between 0 and 1", f.Chance)
	case f.Cause != nil && !f.Refuse:
		return errors.New("a cause is for a connection that is refused")
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("status %d is not between 200 and 599", f.Status)
	case breaks && answers:
		return errors.New("the connection breaks, so there is no answer to change")
	case f.Drop && f.Refuse:
		return errors.New("either drop or refuse")
	case f.Refuse && f.Stage == AfterCommit:
		return errors.New("what was refused can't be committed")
	case f.RetryAfter > 0 && f.RetryDate > 0:
		return errors.New("either RetryAfter or RetryDate")
	case f.replaces() && edits:
		return errors.New("either replace the answer or edit it")
	case f.Stage == BeforeProcessing && fill(f.Body, nil) != f.Body:
		return errors.New("the body names a value of the usual answer: use AfterCommit")
	}
	return errors.Join(f.validateNames(i), f.validateAnswer())
}

func (f Fault) validateNames(i *issuer) error {
	if endpoints()[f.Endpoint] == nil {
		return fmt.Errorf("no endpoint %q", f.Endpoint)
	}
	if _, ok := grants()[f.GrantType]; f.GrantType != "" && !ok {
		return fmt.Errorf("no grant %q", f.GrantType)
	}
	if f.ClientID != "" && i.clients[f.ClientID] == nil && i.services[f.ClientID] == nil {
		return fmt.Errorf("no client %q", f.ClientID)
	}
	if f.Endpoint != EndpointToken && f.GrantType != "" {
		return errors.New("only the token endpoint knows grants")
	}
	if f.Bearer != "" && f.Endpoint != EndpointResource && f.Endpoint != EndpointUserinfo || f.Bearer != "" && f.Bearer != BearerLive && f.Bearer != BearerDead {
		return fmt.Errorf("endpoint %q sees no bearer token that is %q", f.Endpoint, f.Bearer)
	}
	if f.ClientID != "" && !f.Endpoint.authenticates() && f.Endpoint != EndpointAuthorize {
		return fmt.Errorf("endpoint %q knows no clients", f.Endpoint)
	}
	return nil
}

func (f Fault) validateAnswer() error {
	if !f.Expires.known() {
		return fmt.Errorf("no form %q of expires_in", f.Expires)
	}
	if _, err := json.Marshal(f.Set); err != nil {
		return fmt.Errorf("set: %w", err)
	}
	return nil
}

// label is what the journal calls a fault; one that changes nothing and has no name is none.
func (f Fault) label() string {
	if s := f.String(); f.Name == "" && s != noFault {
		return s
	}
	return f.Name
}

// String describes a fault in a few words, e.g. "delay 2s, drop after commit". It shows no body.
func (f Fault) String() string {
	var parts []string
	add := func(set bool, format string, args ...any) {
		if set {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(f.DelayTo > 0, "delay %s to %s", f.Delay, f.DelayTo)
	add(f.Delay > 0 && f.DelayTo == 0, "delay %s", f.Delay)
	add(f.Hang, "hang")
	add(f.Drop, "drop")
	add(f.Refuse, "refuse")
	add(f.Life > 0, "life %s", f.Life)
	add(f.Skew != 0, "skew %s", f.Skew)
	add(f.Status != 0, "status %d", f.Status)
	add(f.Redirect != "", "redirect")
	add(f.Body != "", "body")
	add(f.edits(), "edit")
	add(len(f.Header) > 0 || f.RetryAfter > 0 || f.RetryDate > 0, "headers")
	add(f.Drip > 0, "drip %s", f.Drip)
	add(f.Truncate != 0, "truncate")
	if len(parts) == 0 {
		return noFault
	}
	s := strings.Join(parts, ", ")
	if f.Stage == AfterCommit {
		s += " after commit"
	}
	return s
}
