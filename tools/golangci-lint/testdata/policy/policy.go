// Package policy imports upward.
package policy

import _ "github.com/tokenbroker/tokenbroker/daemon" // for its arrow
