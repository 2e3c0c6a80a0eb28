package agent_test

import (
	"fmt"
	"os"
)

var uid = os.Getuid()

// identity is the tests' own, as the trail has it.
func identity() string { return fmt.Sprintf("unix:uid=%d", uid) }
