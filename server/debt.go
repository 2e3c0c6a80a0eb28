package server

import (
	"sync"

	"github.com/tokenbroker/tokenbroker/audit"
)

// debt is the records of answers that are on their way to a connection. What the connection sends has to wait for them. Whoever prepares an
// answer adds its record before gRPC gets the answer, so no byte of one can be on its way whose record is not owed, or paid.
type debt struct {
	mu   sync.Mutex
	owed []audit.Receipt // no two alike
}

func (d *debt) add(r audit.Receipt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.owed); n == 0 || d.owed[n-1] != r {
		d.owed = append(d.owed, r)
	}
}

// pay waits until all that was owed is written, or returns the first error. Calls must not overlap; gRPC has one writer for each connection.
func (d *debt) pay(room []audit.Receipt) ([]audit.Receipt, error) {
	d.mu.Lock()
	owed := d.owed
	d.owed = room[:0]
	d.mu.Unlock()
	for _, r := range owed {
		if err := r.Wait(); err != nil {
			return owed, err
		}
	}
	return owed, nil
}
