package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// cutStream is a stream whose connection has been cut.
type cutStream struct {
	grpc.ServerStreamingServer[tokenbrokerv1.TailAuditRecordsResponse]
}

func (cutStream) SendHeader(metadata.MD) error { return errors.New("the connection is closed") }

// A tail whose reader is too slow loses its connection, too. Who serves it may come to see all of that at once, and says what came first.
func TestATailThatIsCutSaysForWhatAlsoToABusyServer(t *testing.T) {
	s := &Server{ending: make(chan struct{}), cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	for range 100 {
		ctx, gone := context.WithCancel(t.Context())
		peer := &caller{cut: func() error { gone(); return nil }}
		peer.NotAfter = time.Now().Add(time.Hour)
		tl := &tail{a: &auditService{s: s}, call: &call{caller: peer}, out: cutStream{}, cut: make(chan struct{}, 1)}
		tl.tooSlow()
		if err := tl.serve(ctx, 0); !errors.Is(err, errSlowReader) {
			t.Fatalf("got %v, want the reader to blame", err)
		}
	}
	s.lingering.Wait()
}
