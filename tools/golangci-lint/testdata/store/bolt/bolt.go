// Package bolt imports its neighbour.
package bolt

import (
	_ "github.com/tokenbroker/tokenbroker/policy" // for its arrow
)
