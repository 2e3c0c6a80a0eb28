package web

import (
	"net/netip"
	"sync"
	"time"
)

const (
	ratePerSecond = 5
	rateBurst     = 60
	rateMost      = 10_000 // addresses that are remembered
)

// rates is a token bucket per remote address, per /64 for IPv6.
type rates struct {
	mu      sync.Mutex
	buckets map[netip.Prefix]bucket // network → what it has left
}

type bucket struct {
	left float64
	at   time.Time
}

func newRates() *rates { return &rates{buckets: map[netip.Prefix]bucket{}} }

// take takes one turn of an address. An address that does not read shares its bucket with all such.
func (r *rates) take(remote string, now time.Time) bool {
	key := network(remote)
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.buckets[key]
	switch {
	case ok:
		b.left = min(rateBurst, b.left+ratePerSecond*now.Sub(b.at).Seconds())
	case len(r.buckets) >= rateMost && !r.sweepLocked(now):
		return false
	default:
		b.left = rateBurst
	}
	b.at = now
	good := b.left >= 1
	if good {
		b.left--
	}
	r.buckets[key] = b
	return good
}

// sweepLocked forgets full buckets, and reports whether there is room.
func (r *rates) sweepLocked(now time.Time) bool {
	for key, b := range r.buckets {
		if b.left+ratePerSecond*now.Sub(b.at).Seconds() >= rateBurst {
			delete(r.buckets, key)
		}
	}
	return len(r.buckets) < rateMost
}

func network(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := at.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}
