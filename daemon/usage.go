package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/store"
	"github.com/tokenbroker/tokenbroker/usage"
)

// usageEvery is how often is saved who used what: a crash loses as much.
const usageEvery = time.Minute

// loadUsage takes up what the store kept of who used what. What does not open begins anew, and is told: it keeps nobody from serving.
func (d *Daemon) loadUsage(ctx context.Context, kept *store.Store) error {
	d.usage, d.used = usage.New(time.Now()), kept
	if err := d.usage.Load(ctx, kept); err != nil {
		d.log.Error("a part of who used what does not read: it is counted anew", "error", err)
	}
	there := map[string]bool{}
	for sum, err := range kept.Summaries(ctx) {
		if err != nil && !errors.Is(err, tokenbroker.ErrTampered) {
			return fmt.Errorf("list credentials: %w", err)
		}
		there[sum.Name] = true
	}
	d.usage.Retain(func(credential string) bool { return there[credential] })
	return nil
}

// watchUsage saves who used what until ctx ends.
func (d *Daemon) watchUsage(ctx context.Context) {
	tick := time.NewTicker(usageEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.saveUsage(ctx)
		}
	}
}

func (d *Daemon) saveUsage(ctx context.Context) {
	if err := d.usage.Save(ctx, d.used); err != nil && ctx.Err() == nil {
		d.log.Error("who used what is not saved, it is tried again in a minute", "error", err)
	}
}
