package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/tokenbroker/tokenbroker/bench/subject"
)

// goalFanOut is against the naive loop of a bare server.
const goalFanOut = 0.8

// warmUpRounds are published before anything is measured.
const warmUpRounds = 2

// fanOut compares how one fresh token reaches many streams.
func (b *bench) fanOut(ctx context.Context, r *Result) (err error) {
	subjects, err := b.lineUp(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, subjects.stop()) }()
	fleets := map[string]*fleet{}
	defer func() {
		for _, f := range fleets {
			err = errors.Join(err, f.close())
		}
	}()
	for _, one := range subjects {
		if fleets[one.name], err = b.newFleet(ctx, one, b.alike(b.scale.conns, b.scale.streams), b.scale.conns*b.scale.streams); err != nil {
			delete(fleets, one.name)
			return fmt.Errorf("subscribe to %s: %w", one.name, err)
		}
	}
	q := newQuantities()
	for round := range warmUpRounds + b.scale.publishes {
		for _, one := range subjects.inTurn(round) {
			into := q
			if round < warmUpRounds {
				into = newQuantities()
			}
			if err := publish(into, one, fleets[one.name]); err != nil {
				return fmt.Errorf("publish, %s: %w", one.name, err)
			}
		}
	}
	measure := fmt.Sprintf("A fresh token to %d streams on %d connections", b.scale.conns*b.scale.streams, b.scale.conns)
	q.into(r, measure, map[string]float64{reference: goalFanOut})
	return nil
}

// publish is one subject's part of a round.
func publish(q *quantities, one *contender, f *fleet) error {
	before, err := one.CPU()
	if err != nil {
		return err
	}
	f.expect()
	said, err := one.Ask(subject.Order{Do: subject.DoPublish})
	if err != nil {
		return err
	}
	if err := f.await(); err != nil {
		return err
	}
	after, err := one.CPU()
	if err != nil {
		return err
	}
	q.note("from publish to the last receipt", "ms", one.name, float64(f.last.Load()-said.Published)/1e6)
	q.note("from the provider's answer to the last receipt", "ms", one.name, float64(f.last.Load()-said.Answered)/1e6)
	q.note("server CPU per message", "µs", one.name, micros(after-before)/float64(f.want))
	return nil
}

// memories measures what a server keeps for clients who do nothing: on servers that have done nothing else.
func (b *bench) memories(ctx context.Context, r *Result) error {
	q := newQuantities()
	for range b.scale.memoryRounds {
		if err := b.memory(ctx, q); err != nil {
			return err
		}
	}
	q.into(r, fmt.Sprintf("Memory of the idle (%d connections, then %d streams on %d more)", b.scale.idleConns, b.scale.conns*b.scale.streams, b.scale.conns), nil)
	return nil
}

func (b *bench) memory(ctx context.Context, q *quantities) (err error) {
	subjects, err := b.lineUp(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, subjects.stop()) }()
	for _, one := range subjects {
		if err := b.memoryOf(ctx, q, one); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return nil
}

func (b *bench) memoryOf(ctx context.Context, q *quantities, one *contender) (err error) {
	collect := subject.Order{Do: subject.DoStats, GC: true}
	first, err := b.newFleet(ctx, one, b.alike(1, 1), 1) // what comes with the first of all is not counted
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, first.close()) }()
	none, err := one.Ask(collect)
	if err != nil {
		return err
	}
	idle, err := b.dial(ctx, one, b.scale.idleConns)
	if err != nil {
		return err
	}
	defer hangUp(idle)
	connected, err := one.Ask(collect)
	if err != nil {
		return err
	}
	f, err := b.newFleet(ctx, one, b.alike(b.scale.conns, b.scale.streams), b.scale.conns*b.scale.streams)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	subscribed, err := one.Ask(collect)
	if err != nil {
		return err
	}
	perConn := float64(connected.RSS-none.RSS) / float64(b.scale.idleConns)
	perStream := (float64(subscribed.RSS-connected.RSS) - perConn*float64(b.scale.conns)) / float64(f.want)
	q.note("RSS per idle connection", "KB", one.name, perConn/1e3)
	q.note("RSS per idle stream", "KB", one.name, perStream/1e3)
	q.note("heap per idle stream", "KB", one.name, float64(int64(subscribed.Heap)-int64(connected.Heap))/float64(f.want)/1e3)
	return nil
}
