package server_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/policy"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

var reasonPattern = regexp.MustCompile(`^[A-Z][A-Z0-9_]+[A-Z0-9]$`)

var quiet = slog.New(slog.DiscardHandler)

func TestEveryRowOfTheErrorTable(t *testing.T) {
	actions := []tokenbroker.Recovery{tokenbroker.RecoveryNone, tokenbroker.RecoveryRetry, tokenbroker.RecoveryReauthorize,
		tokenbroker.RecoveryFixConfiguration, tokenbroker.RecoveryAskOperator}
	for _, row := range server.Rows() {
		t.Run(row.Reason, func(t *testing.T) {
			f := faultOf(t, server.ToStatus(quiet, fmt.Errorf("wrapped: %w", row.Err)))
			if f.Code != row.Code || f.Reason != row.Reason || f.Recovery != string(row.Recovery) {
				t.Errorf("got %v %s %s, want %v %s %s", f.Code, f.Reason, f.Recovery, row.Code, row.Reason, row.Recovery)
			}
			if !reasonPattern.MatchString(f.Reason) || len(f.Reason) > 63 {
				t.Errorf("reason %q does not fit AIP-193", f.Reason)
			}
			if !slices.Contains(actions, row.Recovery) {
				t.Errorf("recovery action %q is none of ours", row.Recovery)
			}
			waits := row.Code == codes.Unavailable || row.Code == codes.ResourceExhausted
			if got := f.Retry > 0; got != waits {
				t.Errorf("got RetryInfo %v with %v, want one: %v", f.Retry, row.Code, waits)
			}
			withDelay := faultOf(t, server.ToStatus(quiet, &tokenbroker.Problem{Err: row.Err, Detail: "d", Field: "f", RetryAfter: 7 * time.Second,
				Metadata: map[string]string{"key": "value"}}))
			if withDelay.Retry != 7*time.Second || !slices.Equal(withDelay.Fields, []string{"f"}) || withDelay.Meta["key"] != "value" || withDelay.Recovery != string(row.Recovery) {
				t.Errorf("got %+v, want the delay, the field and the metadata of the problem", withDelay)
			}
		})
	}
}

// sentinels are all errors of the vocabulary that can reach the surface.
var sentinels = []error{tokenbroker.ErrNotFound, tokenbroker.ErrClientNotFound, tokenbroker.ErrAlreadyExists, tokenbroker.ErrInvalidArgument,
	tokenbroker.ErrETagMismatch, tokenbroker.ErrInUse, tokenbroker.ErrNotAllowed, tokenbroker.ErrScopeNotAllowed, tokenbroker.ErrDisabled,
	tokenbroker.ErrQuarantined, tokenbroker.ErrReauthorize, tokenbroker.ErrMisconfigured, tokenbroker.ErrUpstream, tokenbroker.ErrThrottled,
	tokenbroker.ErrBackoff, tokenbroker.ErrUncertain, tokenbroker.ErrMinValidity, tokenbroker.ErrNotHanded, tokenbroker.ErrTooMany,
	tokenbroker.ErrStoreUnavailable, tokenbroker.ErrAuditUnavailable, tokenbroker.ErrDraining, tokenbroker.ErrSuperseded,
	tokenbroker.ErrTampered, tokenbroker.ErrUnknownProvider, tokenbroker.ErrGrantNotSupported}

func TestEverySentinelHasARow(t *testing.T) {
	for _, err := range sentinels {
		if f := faultOf(t, server.ToStatus(quiet, err)); f.Reason == "INTERNAL" {
			t.Errorf("%v has no row", err)
		}
	}
}

func TestOnlyWhatIsMeantForCallersReachesThem(t *testing.T) {
	const canary = "/var/lib/secret-path"
	for _, err := range []error{
		fmt.Errorf("write %s: %w", canary, tokenbroker.ErrStoreUnavailable),
		fmt.Errorf("load %q: %w", canary, tokenbroker.ErrNotFound),
		errors.Join(errors.New(canary), tokenbroker.ErrDraining),
		fmt.Errorf("%s: %w", canary, &tokenbroker.Problem{Err: tokenbroker.ErrInvalidArgument, Detail: "is bad", Field: "f"}),
		errors.New(canary),
		fmt.Errorf("exchange: %w", &tokenbroker.Failure{Code: canary}),
	} {
		if st := status.Convert(server.ToStatus(quiet, err)); strings.Contains(st.Proto().String(), canary) {
			t.Errorf("%v leads to %v", err, st)
		}
	}
	var log bytes.Buffer
	f := faultOf(t, server.ToStatus(slog.New(slog.NewTextHandler(&log, nil)), errors.New(canary)))
	if f.Code != codes.Internal || f.Reason != "INTERNAL" || !strings.Contains(log.String(), canary) {
		t.Errorf("got %v %s and log %q, want INTERNAL and the text in the log alone", f.Code, f.Reason, &log)
	}
}

func TestSeveralViolationsAreToldAtOnce(t *testing.T) {
	err := errors.Join(tokenbroker.Invalid("a", errors.New("is bad")), tokenbroker.Invalid("b.c", errors.New("is worse")))
	f := wantFault(t, server.ToStatus(quiet, err), codes.InvalidArgument, "FIELD_VIOLATION")
	if !slices.Equal(f.Fields, []string{"a", "b.c"}) || !strings.Contains(f.Text, "is bad") || !strings.Contains(f.Text, "is worse") {
		t.Errorf("got fields %v and text %q, want both violations", f.Fields, f.Text)
	}
}

// erratic are providers that panic.
type erratic struct{ value string }

func (e erratic) List() []*tokenbrokerv1.Provider         { panic(e.value) }
func (e erratic) Provider(string) *tokenbrokerv1.Provider { panic(e.value) }

func TestS18APanicIsRecoveredAndRecordedAndItsValueNotLogged(t *testing.T) {
	const canary = "canary-in-a-panic"
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	var log syncBuffer
	trail := new(records)
	var inForce func() *policy.Policy
	r := newRig(t, b, func(c *server.Config) {
		c.Log, c.Audit, c.Providers = slog.New(slog.NewTextHandler(&log, nil)), trail.write, erratic{canary}
		inForce = c.Policy
		c.Policy = func() *policy.Policy { return inForce() }
	})
	conn := r.serve(brokertest.OperatorID)
	list := func() error {
		_, err := tokenbrokerv1.NewProviderServiceClient(conn).ListProviders(brief(t), &tokenbrokerv1.ListProvidersRequest{})
		return err
	}

	was := inForce
	inForce = func() *policy.Policy { panic(canary) }
	f := wantFault(t, list(), codes.Internal, "INTERNAL")
	if strings.Contains(f.Text+log.String(), canary) || !strings.Contains(log.String(), "panic") {
		t.Errorf("got text %q and log %q, want neither to hold the panic's value, and the log to name it", f.Text, log.String())
	}

	inForce = was
	wantFault(t, list(), codes.Internal, "INTERNAL")
	if got := trail.all(); len(got) != 1 || got[0].Code != "INTERNAL" || got[0].Decision != audit.Allow || got[0].Identity != brokertest.OperatorID {
		t.Errorf("got records %+v, want one of the call whose handler panicked", got)
	}
	if strings.Contains(log.String(), canary) {
		t.Error("the log holds the panic's value")
	}

	if _, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"}); err != nil {
		t.Errorf("the server did not live on: %v", err)
	}
}
