package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker/bench/subject"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// Credentials are subscribed to by this many selectors per stream, on a few connections.
const (
	selectorsPerStream = 200
	dueConns           = 4
)

// dues measures how long a broker takes to refresh many credentials that are all due when their workers come back, as after a night
// without power: each has a refresh token that rotates and an access token with five minutes to live.
func (b *bench) dues(ctx context.Context, r *Result) error {
	q := newQuantities()
	for range b.scale.dueRounds {
		if err := b.due(ctx, q); err != nil {
			return err
		}
	}
	q.into(r, fmt.Sprintf("%d credentials due at once", b.scale.due), nil)
	return nil
}

func (b *bench) due(ctx context.Context, q *quantities) (err error) {
	store, err := b.folder()
	if err != nil {
		return err
	}
	p, err := b.start(ctx, subject.Config{Role: subject.Product, Store: store,
		Seed: subject.Seed{Credentials: b.scale.due, Rotating: true, Token: true, Age: 55 * time.Minute}})
	if err != nil {
		return err
	}
	one := &contender{p, product}
	defer func() { err = errors.Join(err, one.Stop()) }()
	before, err := one.CPU()
	if err != nil {
		return err
	}
	began := time.Now()
	fresh, err := b.awaitFresh(ctx, one)
	if err != nil {
		return err
	}
	took := time.Since(began)
	said, err := one.Ask(subject.Order{Do: subject.DoStats})
	if err != nil {
		return err
	}
	if err := b.crash(one); err != nil { // what was seen has to be in the store already
		return err
	}
	stored, err := subject.Generations(ctx, b.site, store, b.scale.due)
	if err != nil {
		return err
	}
	if err := exactlyOnce(said.Exchanges, fresh, stored); err != nil {
		return err
	}
	q.note("until the last worker has the last new token", "s", product, took.Seconds())
	q.note("refreshed per second", "/s", product, float64(b.scale.due)/took.Seconds())
	q.note("server CPU per credential, with the sandbox", "µs", product, micros(said.CPU-before)/float64(b.scale.due))
	q.note("exchanges per credential", "", product, float64(said.Exchanges.Requests)/float64(b.scale.due))
	return nil
}

// crash kills a server, unless it is to write a profile at its end.
func (b *bench) crash(one *contender) error {
	if b.profiles != "" {
		return one.Stop()
	}
	one.Kill()
	return nil
}

// exactlyOnce says what is wrong if not every credential was refreshed by one exchange, or if a token that a worker got is not stored.
func exactlyOnce(e subject.Exchanges, fresh, stored []uint64) error {
	n := len(fresh)
	if want := (subject.Exchanges{Requests: n, Once: n}); e != want {
		return fmt.Errorf("the provider saw %+v, %+v was expected", e, want)
	}
	for i := range fresh {
		if stored[i] != fresh[i] {
			return fmt.Errorf("%s: generation %d is stored, a worker has %d", subject.CredentialName(i), stored[i], fresh[i])
		}
	}
	return nil
}

// awaitFresh subscribes to all credentials and waits for a fresh token of each. It returns their generations.
func (b *bench) awaitFresh(ctx context.Context, one *contender) (fresh []uint64, err error) {
	fresh = make([]uint64, b.scale.due)
	var subscribers []subscriber
	for part := range slices.Chunk(ordinals(b.scale.due), (b.scale.due+dueConns-1)/dueConns) {
		s := subscriber{on: takeFresh(fresh)}
		for few := range slices.Chunk(part, selectorsPerStream) {
			request, err := selecting(few)
			if err != nil {
				return nil, err
			}
			s.requests = append(s.requests, request)
		}
		subscribers = append(subscribers, s)
	}
	f, err := b.newFleet(ctx, one, subscribers, b.scale.due)
	if err != nil {
		return nil, err
	}
	return fresh, f.close()
}

func ordinals(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// selecting is a subscription to some credentials.
func selecting(credentials []int) ([]byte, error) {
	r := &tokenbrokerv1.SubscribeRequest{}
	for _, i := range credentials {
		r.Selectors = append(r.Selectors, &tokenbrokerv1.Selector{Credential: subject.CredentialName(i)})
	}
	return proto.Marshal(r)
}

// takeFresh notes the generation of the first token of each credential that came from the sandbox, not from the seed. No two
// connections have a credential in common.
func takeFresh(fresh []uint64) func(int, []byte) (bool, error) {
	return func(_ int, msg []byte) (bool, error) {
		if generation, err := generationOf(msg); err != nil || generation == 0 {
			return false, err
		}
		m := &tokenbrokerv1.SubscribeResponse{}
		if err := proto.Unmarshal(msg, m); err != nil {
			return false, err
		}
		u := m.GetUpdate()
		i, err := subject.CredentialIndex(u.GetSelector().GetCredential())
		switch {
		case err != nil:
			return false, err
		case i >= len(fresh):
			return false, fmt.Errorf("credential %d of %d", i, len(fresh))
		case !strings.HasPrefix(u.GetToken().GetAccessToken(), sandbox.AccessPrefix):
			return false, nil
		case fresh[i] != 0:
			return false, fmt.Errorf("%s has a second fresh token", subject.CredentialName(i))
		}
		fresh[i] = u.GetGeneration()
		return true, nil
	}
}
