package server

import (
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/tokenbroker/tokenbroker"
)

// pushBackMost is the longest wait that a client's gRPC library is asked for while its caller hears nothing.
const pushBackMost = 2 * time.Second

// pushBack tells a gRPC library that retries by itself what RetryInfo tells its caller (gRFC A6): not sooner, and not at all if that is long. While
// this broker drains another one may well answer at once, so that the library goes by its own policy.
func pushBack(ctx context.Context, err error) {
	p := problemOf(err)
	if p == nil || p.RetryAfter <= 0 || errors.Is(err, tokenbroker.ErrDraining) {
		return
	}
	wait := "-1"
	if p.RetryAfter <= pushBackMost {
		wait = strconv.FormatInt(p.RetryAfter.Milliseconds(), 10)
	}
	_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", wait)) // there is a stream, or nobody to tell
}
