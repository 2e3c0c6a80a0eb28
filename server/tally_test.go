package server_test

import (
	"context"
	"crypto/tls"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenbroker/tokenbroker/audit"
	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/server"
)

// sums adds up the records with a reason, by identity.
func sums(trail *records, reason string) map[string]uint64 {
	got := map[string]uint64{}
	for _, r := range trail.all() {
		if r.Reason == reason && r.Decision == audit.Deny && r.Count > 0 {
			got[r.Identity] += r.Count
		}
	}
	return got
}

func TestDenialsBeyondTheCapAreSummedUpSoonAndNoneIsLost(t *testing.T) {
	trail := new(records)
	r := newRig(t, brokertest.Start(t, brokertest.Config{}), func(c *server.Config) { c.Audit = trail.write })
	conn := r.serve(stranger)
	single := func() (n uint64) {
		for _, rec := range trail.all() {
			if rec.Kind == audit.KindCall && rec.Identity == stranger && rec.Reason == "no_rule" {
				n++
			}
		}
		return n
	}
	began, calls := time.Now(), uint64(0)
	for ; calls < 500 || single() == calls; calls++ { // a slow machine comes beyond the cap later
		_, _ = tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	}
	eventually(t, "all are told, one by one or summed up, while nobody calls", func() bool {
		return single()+sums(trail, "denied_summary")[stranger] == calls
	})
	if most := 200 + 10*uint64(time.Since(began).Seconds()+1); single() < 200 || single() > most {
		t.Errorf("%d of %d were recorded one by one, want 200 to %d", single(), calls, most)
	}
	for _, rec := range trail.all() {
		if rec.Reason == "denied_summary" && (rec.Action != "token.get" || rec.Code != "CREDENTIAL_NOT_FOUND" || rec.Latency <= 0) {
			t.Errorf("got %+v, want what was denied, and over how long", rec)
		}
	}
}

func TestCallsBeyondTheRateAndUnknownMethodsAreSummedUpAtTheShutdown(t *testing.T) {
	trail := new(records)
	r := newRig(t, brokertest.Start(t, brokertest.Config{}), func(c *server.Config) {
		c.Audit, c.Limits.CallsPerSecond = trail.write, 0.001
	})
	conn := r.serve(brokertest.WorkerID)
	var tooMany uint64
	for range 5 {
		_, err := tokensOf(conn).GetToken(brief(t), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		if status.Code(err) == codes.ResourceExhausted {
			tooMany++
		}
	}
	other := r.conn(stranger)
	defer func() { _ = other.Close() }()
	_ = other.Invoke(brief(t), "/tokenbroker.v1.TokenService/Guess", new(tokenbrokerv1.GetTokenRequest), new(tokenbrokerv1.GetTokenResponse))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = conn.Close()
	_ = other.Close()
	r.Drain(ctx)
	if got := sums(trail, "too_many_summary")[brokertest.WorkerID]; got != tooMany || tooMany == 0 {
		t.Errorf("got %d calls beyond the rate summed up, want %d", got, tooMany)
	}
	if got := sums(trail, "unknown_method_summary")[stranger]; got != 1 {
		t.Errorf("got %d unknown methods, want 1", got)
	}
}

func TestRefusedHandshakesAreSummedUpByReason(t *testing.T) {
	trail := new(records)
	b := brokertest.Start(t, brokertest.Config{})
	r := newRig(t, b, func(c *server.Config) { c.Audit = trail.write })
	r.serve(brokertest.WorkerID)
	foreign, err := mtls.NewCA("another", time.Hour, brokertest.TrustDomain)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := foreign.Issue(mtls.Template{SPIFFEID: brokertest.WorkerID, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	try := func(speak func(c *tls.Conn)) {
		raw, err := r.mem.DialContext(brief(t))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = raw.Close() }()
		cfg := clientTLSWith(t, b, cert, key)
		show := cfg.Certificates[0]
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &show, nil } // unasked
		speak(tls.Client(raw, cfg))
	}
	for range 3 {
		try(func(c *tls.Conn) {
			_ = c.HandshakeContext(brief(t))
			_, _ = c.Read(make([]byte, 1))
		})
	}
	try(func(c *tls.Conn) {
		_, _ = c.NetConn().Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		_, _ = c.NetConn().Read(make([]byte, 1))
	})
	eventually(t, "the refused ones are recorded", func() bool {
		return sums(trail, "unknown_authority")[""] == 3 && sums(trail, "not_tls")[""] == 1
	})
}

func TestASumThatCanNotBeRecordedIsKept(t *testing.T) {
	trail := new(records)
	var refuse errorSwitch
	r := newRig(t, brokertest.Start(t, brokertest.Config{}), func(c *server.Config) {
		c.Audit = func(ctx context.Context, rec audit.Record) error {
			if err := refuse.get(); err != nil && rec.Count > 0 {
				return err
			}
			return trail.write(ctx, rec)
		}
	})
	conn := r.serve(stranger)
	refuse.set(errTrail)
	unknown := func(c *grpc.ClientConn) {
		_ = c.Invoke(brief(t), "/tokenbroker.v1.TokenService/Guess", new(tokenbrokerv1.GetTokenRequest), new(tokenbrokerv1.GetTokenResponse))
	}
	unknown(conn)
	eventually(t, "a sum was refused", refuse.asked)
	refuse.set(nil)
	unknown(conn)
	eventually(t, "both are told", func() bool { return sums(trail, "unknown_method_summary")[stranger] == 2 })
}

// errorSwitch is an error that comes and goes.
type errorSwitch struct {
	mu   sync.Mutex
	err  error
	seen bool
}

func (s *errorSwitch) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *errorSwitch) get() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = s.seen || s.err != nil
	return s.err
}

// asked reports whether somebody got an error.
func (s *errorSwitch) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}
