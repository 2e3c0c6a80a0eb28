package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/bench/load"
	"github.com/tokenbroker/tokenbroker/bench/sample"
	"github.com/tokenbroker/tokenbroker/bench/subject"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// shape is how calls come.
type shape struct{ conns, inFlight int }

// String says so in a table.
func (s shape) String() string {
	return fmt.Sprintf("GetToken, %d × %d in flight", s.conns, s.inFlight)
}

// shapes are a few busy clients, and a fleet in which each has one call at a time.
var shapes = []shape{{8, 64}, {64, 1}}

const goalGetToken = 1.20

// getTokens compares the processor time that one GetToken takes the server.
func (b *bench) getTokens(ctx context.Context, r *Result) (err error) {
	subjects, err := b.lineUp(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, subjects.stop()) }()
	for _, s := range shapes {
		q := newQuantities()
		for round := range b.scale.rounds {
			for _, one := range subjects.inTurn(round) {
				if err := b.getToken(ctx, r, q, s, one); err != nil {
					return fmt.Errorf("%s, %s: %w", s, one.name, err)
				}
			}
		}
		q.into(r, s.String(), map[string]float64{tuned: goalGetToken})
	}
	return nil
}

// getToken is one subject's part of a round.
func (b *bench) getToken(ctx context.Context, r *Result, q *quantities, s shape, one *contender) error {
	conns, err := b.dial(ctx, one, s.conns)
	if err != nil {
		return err
	}
	defer hangUp(conns)
	plan := load.Plan{Method: tokenbrokerv1.TokenService_GetToken_FullMethodName, Request: b.getRequest, InFlight: s.inFlight, Check: checkGet}
	plan.For = b.scale.warmUp
	if _, err := call(conns, plan); err != nil {
		return err
	}
	before, err := one.CPU()
	if err != nil {
		return err
	}
	plan.For = b.scale.callsFor
	began := time.Now()
	got, err := call(conns, plan)
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := one.CPU()
	if err != nil {
		return err
	}
	r.failed(got.Errors, got.First)
	if len(got.Latencies) == 0 {
		return fmt.Errorf("none of %d calls went well: %w", got.Calls, got.First)
	}
	q.note("server CPU per call", "µs", one.name, micros(after-before)/float64(got.Calls))
	q.note("calls per second", "/s", one.name, float64(got.Calls)/took.Seconds())
	q.note("p50", "µs", one.name, micros(sample.Quantile(got.Latencies, 0.5)))
	q.note("p99", "µs", one.name, micros(sample.Quantile(got.Latencies, 0.99)))
	return nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// call makes the calls of a plan on each connection, all at once.
func call(conns []*load.Conn, plan load.Plan) (load.Result, error) {
	results := make([]load.Result, len(conns))
	var g errgroup.Group
	for i, c := range conns {
		g.Go(func() (err error) {
			results[i], err = c.Call(plan)
			return err
		})
	}
	err := g.Wait()
	var all load.Result
	for _, r := range results {
		all.Add(r)
	}
	return all, err
}

// contender is a server that runs, under its name in tables.
type contender struct {
	*subject.Process
	name string
}

// contenders are the servers of one comparison. All run at once; each is loaded while the others have nothing to do.
type contenders []*contender

// inTurn is the order within a round: there and back again, so that what drifts falls on all alike.
func (c contenders) inTurn(round int) contenders {
	if round%2 == 0 {
		return c
	}
	back := slices.Clone(c)
	slices.Reverse(back)
	return back
}

func (c contenders) stop() error {
	var g errgroup.Group
	for _, one := range c {
		g.Go(one.Stop)
	}
	return g.Wait()
}

// lineUp starts the product and the references, and has these answer what the product answers.
func (b *bench) lineUp(ctx context.Context) (all contenders, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, all.stop())
			all = nil
		}
	}()
	for _, c := range []struct {
		name string
		role subject.Role
	}{{product, subject.Product}, {reference, subject.Reference}, {tuned, subject.Tuned}, {tunedAgain, subject.Tuned}} {
		p, err := b.start(ctx, subject.Config{Role: c.role, Seed: subject.Seed{Credentials: 1}})
		if err != nil {
			return all, err
		}
		all = append(all, &contender{p, c.name})
	}
	replies, err := b.copyReplies(ctx, all[0])
	if err != nil {
		return all, err
	}
	for _, one := range all[1:] {
		if _, err := one.Ask(replies); err != nil {
			return all, err
		}
	}
	return all, nil
}

// copyReplies gets what the product answers.
func (b *bench) copyReplies(ctx context.Context, from *contender) (subject.Order, error) {
	o := subject.Order{Do: subject.DoReplies}
	conns, err := b.dial(ctx, from, 1)
	if err != nil {
		return o, err
	}
	defer hangUp(conns)
	keep := func(msg []byte) error {
		o.Get = slices.Clone(msg)
		return checkGet(msg)
	}
	got, err := conns[0].Call(load.Plan{Method: tokenbrokerv1.TokenService_GetToken_FullMethodName, Request: b.getRequest, InFlight: 1, Check: keep})
	if err = errors.Join(err, got.First); err != nil {
		return o, err
	}
	enough := errors.New("enough")
	err = conns[0].Streams(tokenbrokerv1.TokenService_Subscribe_FullMethodName, [][]byte{b.subscribeRequest}, func(_ int, msg []byte) error {
		o.Update = slices.Clone(msg)
		return enough
	})
	if !errors.Is(err, enough) {
		return o, fmt.Errorf("no update came: %w", err)
	}
	_, err = generationOf(o.Update)
	return o, err
}

// requests are made once.
func requests() (get, subscribe []byte, err error) {
	name := subject.CredentialName(0)
	get, getErr := proto.Marshal(&tokenbrokerv1.GetTokenRequest{Credential: name})
	subscribe, subErr := proto.Marshal(&tokenbrokerv1.SubscribeRequest{Selectors: []*tokenbrokerv1.Selector{{Credential: name}}})
	return get, subscribe, errors.Join(getErr, subErr)
}
