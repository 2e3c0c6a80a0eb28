package bolt_test

import (
	_ "net/http" // a test may import anything

	_ "github.com/tokenbroker/tokenbroker/server" // for its arrow
)
