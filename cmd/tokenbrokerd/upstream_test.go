package main_test

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/sandbox"
)

// secret is what the client "job" of every issuer has. It is right only where it is form-encoded.
const secret = "s3cret/+ %"

// upstream is the sandbox behind TLS on a loopback port.
type upstream struct {
	*sandbox.Server
	url string
	ca  string // file with its certificate
}

// newUpstream serves issuers. Each gets the client "job".
func newUpstream(t testing.TB, issuers ...sandbox.Issuer) *upstream {
	t.Helper()
	for i := range issuers {
		issuers[i].Clients = []sandbox.Client{{ID: "job", Secrets: []string{secret}}}
	}
	box, err := sandbox.New(sandbox.Config{Issuers: issuers})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(box)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(func() {
		for _, is := range issuers {
			box.Clear(is.Name)
			box.Release(is.Name)
		}
		srv.CloseClientConnections()
		srv.Close()
	})
	u := &upstream{Server: box, url: srv.URL, ca: filepath.Join(t.TempDir(), "upstream-ca.pem")}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(u.ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return u
}

// provider describes an issuer for the config file.
func (u *upstream) provider(issuer string, more ...string) string {
	return providerYAML(issuer, u.url+"/"+issuer+"/token", append([]string{"ca_file: " + u.ca}, more...)...)
}

// steady is an issuer whose refresh tokens stay.
func steady(life time.Duration) sandbox.Issuer {
	return sandbox.Issuer{Name: "steady", Rotation: sandbox.RotateNone, AccessLife: life}
}
