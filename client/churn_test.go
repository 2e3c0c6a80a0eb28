package client_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tokenbroker/tokenbroker/client"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// TestASetThatChangesAllTheTimeOpensFewStreams has a subscriber that wants something else ten times a second, as a job may that an agent serves.
func TestASetThatChangesAllTheTimeOpensFewStreams(t *testing.T) {
	f := &fake{stream: func(_ int, out grpc.ServerStreamingServer[tokenbrokerv1.SubscribeResponse]) error {
		if err := out.Send(&tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_SnapshotEnd{}}); err != nil {
			return err
		}
		<-out.Context().Done()
		return nil
	}}
	faked(t, f, func(t *testing.T, c *client.Client) {
		const minutes = 3
		for i := range minutes * 600 {
			stop := c.OnChange(fmt.Sprintf("example/api-%d", i), func(client.Change) {})
			time.Sleep(100 * time.Millisecond)
			stop()
		}
		_, streams := f.seen()
		if most := minutes*30 + 10; streams > most || streams < minutes {
			t.Errorf("got %d streams in %d minutes, want at most %d, which is one in two seconds", streams, minutes, most)
		}
		time.Sleep(time.Minute + 10*time.Second)
		_, before := f.seen()
		c.OnChange("example/later", func(client.Change) {})
		time.Sleep(100 * time.Millisecond)
		if _, after := f.seen(); after != before+1 {
			t.Errorf("once the set has rested: got %d streams, want the next one soon", after-before)
		}
	})
}
