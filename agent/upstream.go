package agent

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	grpcmetadata "google.golang.org/grpc/metadata"

	"github.com/tokenbroker/tokenbroker"
)

const (
	lookAtCertificate = time.Minute    // between looks at when the agent's certificate ends
	warnAhead         = 24 * time.Hour // of that end, or a quarter of what was left of it first, if that is less
	lastTry           = time.Second    // for a token whose certificate ended: one that is held comes at once, another one never
)

var (
	// errUnreachable is what a job is told when the broker does not answer the agent, or not as a broker does. The agent's log says more.
	errUnreachable = errors.New("the agent's broker does not answer" + noToken)
	// errCertificate is for when the agent can't show the broker who it is any more.
	errCertificate = errors.New("the agent's certificate has ended")
)

// certificate is an error if the agent's own certificate has ended.
func (a *Agent) certificate() error {
	end := a.cfg.Client.CertificateEnd()
	if end.IsZero() || time.Now().Before(end) {
		return nil
	}
	return &unserved{errCertificate, "the agent's certificate ended at " + stamp(end) + ": its owner has to renew it"}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// unserved is why the agent has nothing from its broker, in words of its own.
type unserved struct {
	error
	text string
}

// Error implements error.
func (u *unserved) Error() string { return u.text }

// Unwrap gives the error that it is one of.
func (u *unserved) Unwrap() error { return u.error }

// fetch is Client.Token, with a reason when the broker does not answer.
func (a *Agent) fetch(ctx context.Context, q question) (tokenbroker.Token, error) {
	asking := ctx
	if a.certificate() != nil {
		limited, cancel := context.WithTimeout(ctx, lastTry)
		defer cancel()
		asking = limited
	}
	tok, err := a.cfg.Client.Token(asking, q.credential, q.options()...)
	if err != nil && ctx.Err() == nil {
		err = a.explained(err, asking.Err() != nil, noToken)
	}
	return tok, err
}

// What it means for a job that the broker does not answer.
const (
	noToken     = ", and no token is held that is still good"
	reportLater = ": report again later"
)

// explained is an error of the client, with what the agent knows of why the broker did not answer, and what that means.
func (a *Agent) explained(err error, gaveUp bool, means string) error {
	if err == nil || !gaveUp && reasonOf(statusOf(err)) != "TRANSPORT" {
		return err
	}
	a.unanswered(err)
	if ended := a.certificate(); ended != nil {
		return ended
	}
	return &unserved{errUnreachable, "the agent's broker " + a.cfg.Client.Addr() + " does not answer" + means}
}

// noRetry tells the job's gRPC library that the agent has tried as long as makes sense (gRFC A6).
func noRetry(ctx context.Context, err error) {
	if reasonOf(statusOf(err)) == "TRANSPORT" {
		_ = grpc.SetTrailer(ctx, grpcmetadata.Pairs("grpc-retry-pushback-ms", "-1")) // there is a stream, or nobody to tell
	}
}

// watchCertificate warns ahead of the end of the agent's certificate, and of each that takes its place, until ctx ends.
func (a *Agent) watchCertificate(ctx context.Context) error {
	var c certificateWatch
	tick := time.NewTicker(lookAtCertificate)
	defer tick.Stop()
	for now := time.Now(); ; {
		if c.due(a.cfg.Client.CertificateEnd(), now) {
			a.cfg.Log.Warn("the agent's certificate ends: without another one jobs get no new tokens from then on", "not_after", c.end)
		}
		select {
		case now = <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// certificateWatch is what is known of the certificate in use.
type certificateWatch struct {
	end, seen time.Time // seen first
	warned    bool
}

// due reports whether to warn now, once for each certificate: one that is renewed in time never has so little left.
func (c *certificateWatch) due(end, now time.Time) bool {
	if !end.Equal(c.end) {
		*c = certificateWatch{end: end, seen: now}
	}
	left := end.Sub(now)
	if end.IsZero() || c.warned || left > max(2*lookAtCertificate, min(warnAhead, end.Sub(c.seen)/4)) {
		return false
	}
	c.warned = true
	return true
}
