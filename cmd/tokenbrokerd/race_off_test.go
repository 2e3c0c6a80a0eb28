//go:build !race

package main_test

// underRace says that the tests run under the race detector, so that the command is built with it, too.
const underRace = false
