package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenbroker/tokenbroker/bench/load"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// fleet is many subscribers of one server, a few connections between them.
type fleet struct {
	conns []*load.Conn
	group *errgroup.Group
	ended <-chan struct{} // closed when a connection failed

	want  int64
	got   atomic.Int64
	last  atomic.Int64  // Unix nanoseconds of the newest receipt
	whole chan struct{} // holds a value when all have received
}

// subscriber is what one connection subscribes to, a stream per request, and what it makes of what comes: on reports whether a message
// is one that the fleet waits for.
type subscriber struct {
	requests [][]byte
	on       func(stream int, msg []byte) (counts bool, err error)
}

// newFleet subscribes, and returns when want messages have come that count. ctx governs the fleet's life.
func (b *bench) newFleet(ctx context.Context, one *contender, subscribers []subscriber, want int) (*fleet, error) {
	f := &fleet{want: int64(want), whole: make(chan struct{}, 1)}
	var err error
	if f.conns, err = b.dial(ctx, one, len(subscribers)); err != nil {
		return nil, err
	}
	group, ended := errgroup.WithContext(ctx)
	f.group, f.ended = group, ended.Done()
	for i, c := range f.conns {
		group.Go(func() error {
			return c.Streams(tokenbrokerv1.TokenService_Subscribe_FullMethodName, subscribers[i].requests, f.counting(subscribers[i].on))
		})
	}
	if err := f.await(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// counting counts what comes.
func (f *fleet) counting(on func(int, []byte) (bool, error)) func(int, []byte) error {
	return func(stream int, msg []byte) error {
		counts, err := on(stream, msg)
		if err == nil && counts && f.got.Add(1) == f.want {
			f.last.Store(time.Now().UnixNano())
			f.whole <- struct{}{}
		}
		return err
	}
}

// alike are subscribers of one credential, with some streams each. A stream counts once per generation.
func (b *bench) alike(conns, streams int) []subscriber {
	list := make([]subscriber, conns)
	requests := slices.Repeat([][]byte{b.subscribeRequest}, streams)
	for i := range list {
		newest := make([]uint64, streams)
		list[i] = subscriber{requests, func(stream int, msg []byte) (bool, error) {
			generation, err := generationOf(msg)
			switch was := newest[stream]; {
			case err != nil || generation == 0 || generation == was:
				return false, err
			case generation < was:
				return false, fmt.Errorf("generation %d after %d", generation, was)
			}
			newest[stream] = generation
			return true, nil
		}}
	}
	return list
}

// expect begins a round: every stream is to receive once more.
func (f *fleet) expect() { f.got.Store(0) }

// receiveFor bounds how long a round may take.
const receiveFor = 2 * time.Minute

// await waits until all have received.
func (f *fleet) await() error {
	bound := time.NewTimer(receiveFor)
	defer bound.Stop()
	select {
	case <-f.whole:
		return nil
	case <-f.ended:
		return errors.New("a connection ended")
	case <-bound.C:
		return fmt.Errorf("%d of %d streams received within %s", f.got.Load(), f.want, receiveFor)
	}
}

// close ends all subscriptions, and says what went wrong with them.
func (f *fleet) close() error {
	hangUp(f.conns)
	return f.group.Wait()
}
