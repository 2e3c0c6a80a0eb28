package daemon_test

import (
	"bytes"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/sandbox"
)

// logged is a log that many may write to.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines are those that hold all the texts.
func (l *logged) lines(texts ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(line, text)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

func TestTheLogTellsWhatBrokeAndWhenItWorksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		b := brokertest.Start(t, brokertest.Config{Log: log})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		seed := b.AddRefreshToken("example/drive", "rotating", "files.read")
		b.Token("example/api")
		b.Token("example/drive")
		if got := log.lines("credential is"); len(got) != 0 {
			t.Errorf("all is well: got %q, want nothing", got)
		}
		b.Sandbox.Fail("fast", sandbox.Fault{Status: 502, Times: sandbox.Forever})
		b.Sandbox.RevokeFamily(seed)
		time.Sleep(53 * time.Minute)
		if got := log.lines("credential is DEGRADED", "example/api", "http_502", "level=WARN"); len(got) != 1 {
			t.Errorf("an outage: got %d lines, want 1", len(got))
		}
		if got := log.lines("credential is REAUTHORIZE", "example/drive", "invalid_grant", "level=ERROR", "recovery=REAUTHORIZE"); len(got) != 1 {
			t.Errorf("a dead grant: got %d lines, want 1", len(got))
		}
		b.Sandbox.Clear("fast")
		time.Sleep(15 * time.Minute)
		if got := log.lines("credential is READY again", "example/api"); len(got) != 1 {
			t.Errorf("the end of the outage: got %d lines, want 1", len(got))
		}
		if got := log.lines("sandbox_"); len(got) != 0 {
			t.Errorf("the log holds a token: %q", got)
		}
	})
}

func TestTheLogTellsThatTheAuditLogIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		b := brokertest.Start(t, brokertest.Config{Log: log})
		defer b.Stop()
		b.AddClientCredentials("example/api", "files.read")
		must(t, os.Rename(b.Dir+"/audit.jsonl", b.Dir+"/audit.old"))
		must(t, os.Mkdir(b.Dir+"/audit.jsonl", 0o700))
		_, err := tokenbrokerv1.NewTokenServiceClient(b.Worker()).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		if err == nil {
			t.Errorf("got a token without a record")
		}
		time.Sleep(5 * time.Second)
		must(t, os.Remove(b.Dir+"/audit.jsonl"))
		time.Sleep(10 * time.Second)
		if got := log.lines("the audit log can't be written"); len(got) != 1 {
			t.Errorf("down: got %d lines, want 1", len(got))
		}
		if got := log.lines("the audit log can be written again"); len(got) != 1 {
			t.Errorf("up again: got %d lines, want 1", len(got))
		}
	})
}

func TestTheLogTellsOfRefusedHandshakesButNotOfEach(t *testing.T) {
	log := &logged{}
	b := brokertest.Start(t, brokertest.Config{Log: log})
	conn := b.ConnWith(mtls.Template{DNSNames: []string{"jobs.brokertest.local"}, Client: true}) // no SPIFFE ID
	for range 100 {
		_, _ = tokenbrokerv1.NewTokenServiceClient(conn).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
		conn.ResetConnectBackoff()
	}
	b.Stop()
	if got := log.lines("handshake refused"); len(got) == 0 || len(got) > 20 {
		t.Errorf("got %d lines of refused handshakes, want a few", len(got))
	}
}

// Probes of a load balancer open a connection and close it. Told of as refusals, they take the few lines that there are for those.
func TestProbesHideNoRefusedHandshake(t *testing.T) {
	log := &logged{}
	b := brokertest.Start(t, brokertest.Config{Log: log, TCP: true})
	for i := range 100 {
		probe, err := net.Dial("tcp", b.Daemon.Addr().String())
		must(t, err)
		if i%2 == 0 {
			must(t, probe.(*net.TCPConn).SetLinger(0)) // ends it by a reset, as some do
		}
		must(t, probe.Close())
	}
	conn := b.ConnWith(mtls.Template{DNSNames: []string{"jobs.brokertest.local"}, Client: true}) // no SPIFFE ID
	_, _ = tokenbrokerv1.NewTokenServiceClient(conn).GetToken(t.Context(), &tokenbrokerv1.GetTokenRequest{Credential: "example/api"})
	b.Stop()
	if got := log.lines("handshake refused", "no URI SAN"); len(got) == 0 {
		t.Errorf("got no line of the refused handshake, but %q", log.lines("handshake refused"))
	}
	if got := log.lines("handshake refused", "EOF"); len(got) != 0 {
		t.Errorf("got %q of probes", got)
	}
}

func TestTheLogTellsOfACredentialThatNeverGotAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		b := brokertest.Start(t, brokertest.Config{Log: log})
		defer b.Stop()
		b.Sandbox.Fail("fast", sandbox.Fault{Status: 302, Redirect: "https://elsewhere.example/", Times: sandbox.Forever})
		b.AddClientCredentials("example/api", "files.read")
		time.Sleep(time.Minute)
		if got := log.lines("credential is PENDING", "example/api", "redirect_refused", "level=WARN"); len(got) != 1 {
			t.Errorf("got %d lines, want 1", len(got))
		}
		b.Sandbox.Clear("fast")
		time.Sleep(10 * time.Minute)
		b.Token("example/api")
		if got := log.lines("credential is READY again", "example/api"); len(got) != 1 {
			t.Errorf("after the mend: got %d lines, want 1", len(got))
		}
	})
}

func TestTheLogTellsOfARefreshTokenThatDiesSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		life := provider.Duration(48 * time.Hour)
		b := brokertest.Start(t, brokertest.Config{Log: log, WatchEvery: time.Hour, Profile: func(_ string, p *provider.Profile) { p.AbsoluteLife = &life }})
		defer b.Stop()
		b.AddRefreshToken("example/drive", "rotating", "files.read")
		dies := time.Now().Add(48 * time.Hour).UTC().Format(time.RFC3339)
		time.Sleep(23 * time.Hour)
		if got := log.lines("dies soon"); len(got) != 0 {
			t.Errorf("with 25 h to go: got %q, want nothing", got)
		}
		time.Sleep(2 * time.Hour)
		if got := log.lines("the refresh token dies soon", "level=WARN", "example/drive", "dies="+dies); len(got) != 1 {
			t.Errorf("with 23 h to go: got %d lines, want 1", len(got))
		}
	})
}
