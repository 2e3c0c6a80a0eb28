package fleet_test

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// pace is how fast the machine is. A machine with too much to do delays everybody: what a request may take is counted in beats, which have
// nothing to do with tokens or the broker.
type pace struct{ beats []beat }

// beat is a command that runs and does nothing, and a handshake with the resource server.
type beat struct{ from, to time.Time }

func (b beat) took() time.Duration { return b.to.Sub(b.from) }

// watch measures until ctx ends.
func (p *pace) watch(ctx context.Context, s *site) {
	base := &http.Transport{TLSClientConfig: s.trust(), DisableKeepAlives: true}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		b := beat{from: time.Now()}
		_ = exec.CommandContext(ctx, filepath.Join(bin, "tokenctl"), "version").Run()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.api.url, nil)
		if err == nil {
			if resp, err := base.RoundTrip(req); err == nil {
				_ = resp.Body.Close()
			}
		}
		b.to = time.Now()
		p.beats = append(p.beats, b)
		<-tick.C
	}
}

// within is the longest beat of a time.
func (p *pace) within(from, to time.Time) (most time.Duration) {
	for _, b := range p.beats {
		if b.to.After(from) && b.from.Before(to) {
			most = max(most, b.took())
		}
	}
	return most
}

// late are the longest beats.
func (p *pace) late() (all []time.Duration) {
	for _, b := range p.beats {
		all = append(all, b.took().Round(time.Millisecond))
	}
	slices.SortFunc(all, func(a, b time.Duration) int { return int(b - a) })
	return all[:min(len(all), 5)]
}
