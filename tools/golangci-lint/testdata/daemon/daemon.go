// Package daemon may import anything.
package daemon

import (
	_ "net/http" // allowed here

	_ "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1" // allowed here
)
