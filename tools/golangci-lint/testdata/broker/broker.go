// Package broker knows transports, disks and neighbours that it should not.
package broker

import (
	"context"
	_ "crypto/tls" // for its arrow
	_ "net/http"   // for its arrow
	"time"

	_ "github.com/tokenbroker/tokenbroker/policy"               // for its arrow
	_ "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1" // for its arrow
)

var calls = 1

var table = map[string]int{"allowed": 1}

type engine struct {
	ctx context.Context
}

func init() { calls = len(table) }

func (e engine) wait() {
	select {
	case <-e.ctx.Done():
	case <-time.After(time.Second):
	}
}

func Run(ctx context.Context) int { engine{ctx}.wait(); return calls }
