//go:build !unix

package main

import (
	"context"
	"errors"
)

func become(string, []string, []string) error { return errors.ErrUnsupported }

func (j *execJob) supervise(context.Context, string, []string) error {
	return &failure{exit: exitFix, what: "tokenctl exec needs a Unix", action: "use tokenctl file, or get"}
}
