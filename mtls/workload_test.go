package mtls_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker/mtls"
)

func letIn(t *testing.T, s *mtls.Source, p pair, ca []byte) bool {
	t.Helper()
	o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, source(t, p, ca), brokerID))
	return o.server == nil && o.client == nil
}

func TestTheWorkloadAPIGivesCertificateAndBundles(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	guest := issue(t, theirs, mtls.Template{SPIFFEID: partner, Client: true})
	a := newAgent(t).say(broker(t, ours), ours.CertPEM(), map[string][]byte{"partner.example": theirs.CertPEM()}).start()
	s := a.open(mtls.Workload{})
	if !letIn(t, s, worker(t, ours), ours.CertPEM()) || !letIn(t, s, guest, ours.CertPEM()) {
		t.Error("a worker of a domain that has a bundle was refused")
	}
	if letIn(t, s, worker(t, theirs), ours.CertPEM()) {
		t.Error("another domain's CA vouched for ours")
	}
	if apart := a.open(mtls.Workload{Apart: true, Files: mtls.Files{CA: newDisk(t, guest, theirs.CertPEM()).files.CA}}); letIn(t, apart, worker(t, ours), ours.CertPEM()) ||
		!letIn(t, apart, worker(t, theirs), ours.CertPEM()) || letIn(t, apart, guest, ours.CertPEM()) {
		t.Error("a listener with a CA of its own took the bundles of the workload API, or not that CA for its own domain")
	}
}

// A client has its certificate and the broker's bundle from the API as well.
func TestAClientOfTheWorkloadAPI(t *testing.T) {
	ca := newCA(t, "dev")
	a := newAgent(t).say(worker(t, ca), ca.CertPEM(), nil).start()
	c, s := a.open(mtls.Workload{}), source(t, broker(t, ca), ca.CertPEM())
	for _, expect := range []string{brokerID, "localhost"} {
		if o := handshake(t, s.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, expect)); o.server != nil || o.client != nil {
			t.Errorf("expecting %s: server %v, client %v", expect, o.server, o.client)
		}
	}
	foreign := source(t, broker(t, newCA(t, "foreign")), ca.CertPEM())
	if o := handshake(t, foreign.ServerTLS(mtls.ServerOptions{}), clientTLS(t, c, "localhost")); o.client == nil {
		t.Error("it took a server of another CA")
	}
}

func TestTheWorkloadAPIRotatesWithoutARestart(t *testing.T) {
	old, next := newCA(t, "old"), newCA(t, "new")
	both := append(old.CertPEM(), next.CertPEM()...)
	a := newAgent(t).say(broker(t, old), old.CertPEM(), nil).start()
	s := a.open(mtls.Workload{})
	before := s.Fingerprint()
	news := follow(t, s)
	a.say(broker(t, next), both, nil)
	if err := news(); err != nil || s.Fingerprint() == before {
		t.Fatalf("rotation: got %v, want another certificate", err)
	}
	if !letIn(t, s, worker(t, old), both) || !letIn(t, s, worker(t, next), both) {
		t.Error("in the overlap a worker was refused")
	}
	a.say(broker(t, next), next.CertPEM(), nil)
	if err := news(); err != nil {
		t.Fatalf("the old CA taken out: got %v", err)
	}
	if letIn(t, s, worker(t, old), both) || !letIn(t, s, worker(t, next), both) {
		t.Error("a worker of the old CA was let in, or one of the new was not")
	}
}

func TestAnOutageOfTheWorkloadAPIKeepsTheLastGood(t *testing.T) {
	ca := newCA(t, "dev")
	p := broker(t, ca)
	a := newAgent(t).say(p, ca.CertPEM(), nil).start()
	s := a.open(mtls.Workload{})
	before := s.Fingerprint()
	news := follow(t, s)
	a.stop()
	if err := news(); err == nil || !strings.Contains(err.Error(), a.socket) || s.Err() == nil {
		t.Fatalf("outage: got %v, Err %v, want it told", err, s.Err())
	}
	if s.Fingerprint() != before || !letIn(t, s, worker(t, ca), ca.CertPEM()) {
		t.Error("what was in use is not any more")
	}
	next := broker(t, ca)
	a.say(next, ca.CertPEM(), nil)
	a.start()
	for err := news(); err != nil; err = news() {
		t.Logf("still away: %v", err)
	}
	if s.Fingerprint() == before || s.Err() != nil {
		t.Errorf("after the outage: Err %v, the old certificate: %v", s.Err(), s.Fingerprint() == before)
	}
}

// Both have to be told: that the certificate ended, and why no other one comes.
func TestAnOutageOfTheWorkloadAPIIsToldBesideWhatIsWrongAlready(t *testing.T) {
	ca := newCA(t, "dev")
	a := newAgent(t).say(broker(t, ca), ca.CertPEM(), nil).start()
	news := follow(t, a.open(mtls.Workload{}))
	a.say(issue(t, ca, mtls.Template{SPIFFEID: brokerID, Server: true, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}), ca.CertPEM(), nil)
	if err := news(); err == nil || !strings.Contains(err.Error(), "ended at") {
		t.Fatalf("an ended certificate: got %v", err)
	}
	a.stop()
	if err := news(); err == nil || !strings.Contains(err.Error(), "ended at") || !strings.Contains(err.Error(), "Unavailable") {
		t.Errorf("got %v, want both", err)
	}
}

// An agent that goes down ends its streams with CANCELED, and go-spiffe takes that for the last word, as it does INVALID_ARGUMENT.
func TestWhateverTheWorkloadAPIEndsWithItIsAskedAgain(t *testing.T) {
	ca := newCA(t, "dev")
	a := newAgent(t).say(broker(t, ca), ca.CertPEM(), nil).start()
	s := a.open(mtls.Workload{})
	news := follow(t, s)
	for _, code := range []codes.Code{codes.Canceled, codes.InvalidArgument, codes.PermissionDenied} {
		before := s.Fingerprint()
		a.refuse(code)
		if err := news(); err == nil || !strings.Contains(err.Error(), code.String()) {
			t.Errorf("%v: got %v, want it told", code, err)
		}
		a.say(broker(t, ca), ca.CertPEM(), nil)
		for err := news(); err != nil; err = news() {
			t.Logf("still %v", err)
		}
		if s.Fingerprint() == before || s.Err() != nil {
			t.Errorf("%v: what it said afterwards is not in use, Err %v", code, s.Err())
		}
	}
}

// TestBadAnswersOfTheWorkloadAPIKeepTheLastGood has it say one wrong thing after the other.
func TestBadAnswersOfTheWorkloadAPIKeepTheLastGood(t *testing.T) {
	ca := newCA(t, "dev")
	good := broker(t, ca)
	a := newAgent(t).say(good, ca.CertPEM(), nil).start()
	s := a.open(mtls.Workload{})
	before, says := s.Fingerprint(), a.says
	news := follow(t, s)
	ended := issue(t, ca, mtls.Template{SPIFFEID: brokerID, Server: true, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	for _, row := range []struct {
		name string
		say  func()
		want string
	}{
		{"an ended certificate", func() { a.say(ended, ca.CertPEM(), nil) }, "/s\": certificate 1 of the chain ended at"},
		{"a key of another", func() { a.say(pair{good.cert, worker(t, ca).key}, ca.CertPEM(), nil) }, "workload API"},
		{"no bundle of our own", func() { a.say(broker(t, ca), nil, nil) }, "no bundle of our own trust domain example.org"},
		{"a leaf in a bundle", func() { a.say(broker(t, ca), ca.CertPEM(), map[string][]byte{"partner.example": good.cert}) }, "not of a CA"},
		{"one CA in two bundles", func() { a.say(broker(t, ca), ca.CertPEM(), map[string][]byte{"partner.example": ca.CertPEM()}) },
			"both example.org and partner.example"},
		{"garbage in a bundle", func() {
			a.tell(&workload.X509SVIDResponse{Svids: says.GetSvids(), FederatedBundles: map[string][]byte{"spiffe://partner.example": []byte("garbage")}})
		}, "workload API"},
	} {
		row.say()
		if err := news(); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want an error with %q", row.name, err, row.want)
		}
		if s.Fingerprint() != before || !letIn(t, s, worker(t, ca), ca.CertPEM()) {
			t.Errorf("%s: what was in use is not any more", row.name)
		}
		a.say(broker(t, ca), ca.CertPEM(), nil)
		if err := news(); err != nil || s.Fingerprint() == before {
			t.Errorf("%s: after it the right thing was not taken up: %v", row.name, err)
		}
		before = s.Fingerprint()
	}
}

func TestAStartWaitsForTheWorkloadAPI(t *testing.T) {
	ca := newCA(t, "dev")
	a := newAgent(t) // its socket is not there yet
	waiting := make(chan error, 10)
	opened := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var s *mtls.Source
	go func() {
		var err error
		s, err = mtls.OpenWorkload(ctx, mtls.Workload{Socket: a.socket, Waiting: func(err error) { waiting <- err }})
		opened <- err
	}()
	if err := <-waiting; err == nil {
		t.Error("it was not told why it waits")
	}
	a.start() // it knows no entry for us yet
	a.say(broker(t, ca), ca.CertPEM(), nil)
	if err := <-opened; err != nil || !letIn(t, s, worker(t, ca), ca.CertPEM()) {
		t.Errorf("got %v, want it opened", err)
	}
	if len(waiting) != 0 {
		t.Error("it was told more than once that it waits")
	}
}

func TestAStartWithoutTheWorkloadAPISaysWhatToDo(t *testing.T) {
	a := newAgent(t).start() // it knows no entry for us
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := mtls.OpenWorkload(ctx, mtls.Workload{Socket: a.socket})
	if err == nil || !strings.Contains(err.Error(), "see that the agent runs and has an entry") || !strings.Contains(err.Error(), a.socket) {
		t.Errorf("got %v", err)
	}
	for socket, want := range map[string]string{"": "workload API", "/run/spire/agent.sock": "unix:///run/spire/agent.sock", "http://x": "workload API"} {
		if _, err := mtls.OpenWorkload(t.Context(), mtls.Workload{Socket: socket}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("socket %q: got %v, want an error with %q", socket, err, want)
		}
	}
	both := mtls.Workload{Socket: a.socket, Files: mtls.Files{Cert: "x", Key: "y"}}
	if _, err := mtls.OpenWorkload(t.Context(), both); err == nil || !strings.Contains(err.Error(), "set one of them") || both.Check() == nil {
		t.Errorf("with files: got %v", err)
	}
	if err := (mtls.Workload{Socket: a.socket, Files: mtls.Files{CA: filepath.Join(t.TempDir(), "absent")}}).Check(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("check of an absent bundle: got %v", err)
	}
}

// A CA of the API's bundles vouches for one trust domain, whatever the files say of it.
func TestACAOfTheWorkloadAPIIsNotThatOfAnotherFile(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	a := newAgent(t).say(broker(t, ours), append(ours.CertPEM(), theirs.CertPEM()...), nil).start()
	d := newDisk(t, broker(t, ours), append(ours.CertPEM(), theirs.CertPEM()...)).domains(map[string][]byte{"partner.example": theirs.CertPEM()})
	for name, w := range map[string]mtls.Workload{
		"of our own bundle":                   {Files: mtls.Files{Domains: d.files.Domains}},
		"of the CA file of an apart listener": {Files: mtls.Files{CA: d.files.CA, Domains: d.files.Domains}, Apart: true},
	} {
		w.Socket = a.socket
		ctx, cancel := context.WithCancel(t.Context())
		var why error
		w.Waiting = func(err error) { why = err; cancel() }
		_, err := mtls.OpenWorkload(ctx, w)
		cancel()
		if err == nil || why == nil || !strings.Contains(why.Error(), "partner.example") || !strings.Contains(why.Error(), "example.org") {
			t.Errorf("%s: got %v, %v, want both domains named", name, err, why)
		}
	}
}
