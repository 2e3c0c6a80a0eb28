package server_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestALibraryThatRetriesIsToldHowLongToWait(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want []string
	}{
		{"a while", &tokenbroker.Problem{Err: tokenbroker.ErrBackoff, RetryAfter: 1500 * time.Millisecond}, []string{"1500"}},
		{"longer than anybody waits", &tokenbroker.Problem{Err: tokenbroker.ErrUpstream, RetryAfter: time.Minute}, []string{"-1"}},
		{"nobody knows how long", tokenbroker.ErrAuditUnavailable, nil},
		{"another broker may answer", &tokenbroker.Problem{Err: tokenbroker.ErrDraining, RetryAfter: time.Minute}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRepeats(t)
			r.warm()
			r.refuse.Store(&tc.err)
			var trailer metadata.MD
			_, err := tokensOf(r.conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: again}, grpc.Trailer(&trailer))
			if got := trailer.Get("grpc-retry-pushback-ms"); err == nil || len(got) != len(tc.want) || len(got) > 0 && got[0] != tc.want[0] {
				t.Errorf("got %v and %v, want %v", got, errors.Unwrap(err), tc.want)
			}
		})
	}
}
