package agent

import (
	"fmt"
	"slices"
)

// Peer is who is at the other end of a local connection, as the kernel says.
type Peer struct {
	UID    uint32
	Groups []uint32 // the primary group and the supplementary ones; of a TCP connection none is known
	PID    int      // 0 = not known
	Addr   string   // of a TCP connection; "" = a Unix socket

	// Unidentified says that nobody knows the UID: it is a TCP connection whose owner was not found.
	Unidentified bool
}

// identity names a peer in the trail.
func (p Peer) identity() string {
	if p.Unidentified {
		return "loopback:unidentified"
	}
	return fmt.Sprintf("unix:uid=%d", p.UID)
}

// place is where a peer is, for the trail.
func (p Peer) place() string {
	if p.Addr != "" {
		return p.Addr
	}
	return fmt.Sprintf("pid=%d", p.PID)
}

// in reports whether a peer is of one of the groups, and of which.
func (p Peer) in(groups []uint32) (gid uint32, ok bool) {
	i := slices.IndexFunc(p.Groups, func(g uint32) bool { return slices.Contains(groups, g) })
	if i < 0 {
		return 0, false
	}
	return p.Groups[i], true
}
