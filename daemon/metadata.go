package daemon

import (
	"context"
	"time"

	"github.com/tokenbroker/tokenbroker/grant"
)

// metadataEvery is how often it is asked whether some provider's metadata is to be looked at anew; package grant decides.
const metadataEvery = 30 * time.Second

// loadMetadata takes up what the store kept of providers that discover. What does not open is fetched anew, and told.
func (d *Daemon) loadMetadata(ctx context.Context, kept grant.MetadataCache) {
	d.metadata = kept
	if err := d.grants.LoadMetadata(ctx, kept); err != nil {
		d.log.Error("provider metadata in the store is of no use: it will be fetched", "error", err)
	}
}

// watchMetadata keeps providers' metadata fresh until ctx ends.
func (d *Daemon) watchMetadata(ctx context.Context) {
	tick := time.NewTicker(metadataEvery)
	defer tick.Stop()
	for {
		for _, report := range d.grants.RefreshMetadata(ctx, d.metadata) {
			if ctx.Err() == nil {
				d.metadataLooked(report)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// metadataLooked tells what came of a look. An endpoint that was not taken is one that somebody has to judge.
func (d *Daemon) metadataLooked(r grant.MetadataReport) {
	for _, why := range r.Refused {
		d.log.Warn("provider metadata: not taken", "provider", r.Provider, "why", why)
	}
	switch {
	case !r.Taken:
		d.log.Warn("provider metadata: no new document, what is known stays in use", "provider", r.Provider, "error", r.Err)
	case r.Err != nil:
		d.log.Error("provider metadata: in use, but not kept for the next start", "provider", r.Provider, "error", r.Err)
	default:
		d.log.Info("provider metadata: in use", "provider", r.Provider)
	}
}
