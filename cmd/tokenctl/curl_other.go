//go:build !unix

package main

import (
	"context"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

type curlRun struct {
	heads *heads
	exit  int
	shown bool
}

func (j *curlJob) once(context.Context, *tokenbrokerv1.Token) (*curlRun, error) {
	return nil, &failure{exit: exitFix, what: "tokenctl curl needs /dev/fd, which this system does not have", action: "pipe tokenctl header into curl -H @-"}
}

func (run *curlRun) flush() error { return nil }
