package canary_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/attack/canary"
)

func TestWhatClientsAreToldIsKeptWhole(t *testing.T) {
	st, err := status.New(codes.Internal, "in a text").WithDetails(&errdetails.ErrorInfo{Reason: "IN_A_DETAIL"})
	if err != nil {
		t.Fatal(err)
	}
	var told canary.Told
	told.Err(nil)
	told.Err(errors.New("in an error"))
	told.Err(st.Err())
	told.Reply(&errdetails.ErrorInfo{Metadata: map[string]string{"key": "in a reply"}})
	for _, want := range []string{"in an error", "in a text", "IN_A_DETAIL", "in a reply"} {
		if !strings.Contains(told.Text(), want) {
			t.Errorf("got %q, want %q in it", told.Text(), want)
		}
	}
}
