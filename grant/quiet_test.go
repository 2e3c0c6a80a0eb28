package grant_test

import (
	"io"
	"log"
)

// quiet swallows what test servers say of the faults that the tests cause.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
