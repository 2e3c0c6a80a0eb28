//go:build !linux

package audit

import "os"

// unlinked is not known here.
func unlinked(*os.File) bool { return false }

// room is not known here.
func room(string) (bytes uint64, known bool) { return 0, false }

// locked is not known here.
func locked(*os.File) bool { return false }
