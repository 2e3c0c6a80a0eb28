package main_test

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// TestCertificateChange swaps the broker's certificate under open streams: new connections see the new one, the streams stay, and a
// damaged file changes nothing.
func TestCertificateChange(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, steady(time.Hour))
	s := newSite(t, up.provider("steady"))
	s.start()
	operator := s.conn("operator")
	addJob(t, operator, "steady")
	add(t, operator, "example/one", "steady", "steady", "", "reports.read")
	worker := s.conn("worker")
	mustGet(t, worker, "example/one")
	stream, _ := subscribe(t, worker, "example/one")
	snapshot(t, stream)

	first := s.shown()
	s.issue("server", mtls.Template{SPIFFEID: "spiffe://tokenbroker.local/broker", DNSNames: []string{"localhost"},
		IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, NotAfter: time.Now().Add(time.Hour)})
	eventually(t, "the new certificate", func() bool { return s.shown() != first })
	second := s.shown()

	s.write("server.pem", "-----BEGIN CERTIFICATE-----\ngarbage\n-----END CERTIFICATE-----\n")
	want(t, s.proc.line("certificates refused"), "server.pem", "the last good ones stay in use")
	if got := s.shown(); got != second {
		t.Errorf("got certificate %s after a damaged file, want the last good one, %s", got, second)
	}
	mustGet(t, s.conn("operator"), "example/one")

	if _, err := tokenbrokerv1.NewCredentialServiceClient(operator).DisableCredential(t.Context(),
		&tokenbrokerv1.DisableCredentialRequest{Credential: "example/one"}); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetUpdate().GetState() != tokenbrokerv1.CredentialState_CREDENTIAL_STATE_DISABLED {
		t.Errorf("got %v on the stream of before, want the next change", err)
	}
	s.stop()
}

// shown is the serial of the certificate that a new connection sees.
func (s *site) shown() string {
	s.t.Helper()
	config, err := s.source("worker").ClientTLS("spiffe://tokenbroker.local/broker")
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", *s.grpc.Load(), config)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}
