// Package tokenbroker breaks rules on purpose: make lint-selftest checks that the linters say so.
package tokenbroker

import "os"

// Name reads the disk.
func Name() string { name, _ := os.Hostname(); return name }
