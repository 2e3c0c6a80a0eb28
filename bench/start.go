package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker/bench/load"
	"github.com/tokenbroker/tokenbroker/bench/subject"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// starts measures how long a broker with a large store takes from the start of its process to the first token, and what it keeps in
// memory per credential. The pages of the store are in the system's cache.
func (b *bench) starts(ctx context.Context, r *Result) error {
	q := newQuantities()
	empty, err := b.folder()
	if err != nil {
		return err
	}
	full, err := b.folder()
	if err != nil {
		return err
	}
	seed := subject.Seed{Credentials: 1, Rotating: true, Token: true}
	if err := subject.Fill(ctx, b.site, empty, seed, madeUp); err != nil {
		return err
	}
	seed.Credentials = b.scale.stored
	if err := subject.Fill(ctx, b.site, full, seed, madeUp); err != nil {
		return fmt.Errorf("fill a store: %w", err)
	}
	for range b.scale.startRounds {
		_, least, err := b.startOnce(ctx, empty)
		if err != nil {
			return err
		}
		took, heap, err := b.startOnce(ctx, full)
		if err != nil {
			return err
		}
		q.note("from the start of the process to the first GetToken", "ms", product, float64(took.Microseconds())/1e3)
		q.note("heap per credential", "bytes", product, float64(int64(heap)-int64(least))/float64(b.scale.stored))
	}
	q.into(r, fmt.Sprintf("Start with %d credentials in the store", b.scale.stored), nil)
	return nil
}

// madeUp is a refresh token that is never sent.
func madeUp() string { return "made-up-refresh-token-of-a-length-as-they-have" }

// startOnce starts a broker over a store that is there, and gets a token.
func (b *bench) startOnce(ctx context.Context, store string) (took time.Duration, heap uint64, err error) {
	p, err := b.start(ctx, subject.Config{Role: subject.Product, Store: store})
	if err != nil {
		return 0, 0, err
	}
	one := &contender{p, product}
	defer func() { err = errors.Join(err, one.Stop()) }()
	conns, err := b.dial(ctx, one, 1)
	if err != nil {
		return 0, 0, err
	}
	defer hangUp(conns)
	got, err := conns[0].Call(load.Plan{Method: tokenbrokerv1.TokenService_GetToken_FullMethodName, Request: b.getRequest, InFlight: 1, Check: checkGet})
	took = time.Since(p.Started)
	if err = errors.Join(err, got.First); err != nil {
		return 0, 0, err
	}
	said, err := one.Ask(subject.Order{Do: subject.DoStats, GC: true})
	return took, said.Heap, err
}
