package agent_test

import "os"

var uid = os.Getuid()
