package subject

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/mtls"
)

const (
	domain   = "bench.local"
	serverID = "spiffe://" + domain + "/broker"
	workerID = "spiffe://" + domain + "/worker/load"
)

// benchPolicy has a few rules besides the one that is used, as a policy has.
const benchPolicy = `version: 1
rules:
  - name: operators
    identities: ["spiffe://bench.local/operator/*"]
    actions: ["credential.*", "oauth_client.*", "token.*"]
    credentials: ["**"]
    oauth_clients: ["**"]
    scopes: ["**"]
  - name: others
    identities: ["spiffe://bench.local/worker/other", "spiffe://bench.local/team-a/*"]
    actions: ["token.*"]
    credentials: ["other/*"]
    scopes: ["other.read", "other.write"]
  - name: load
    identities: ["spiffe://bench.local/worker/load"]
    actions: ["token.*"]
    credentials: ["bench/*"]
    scopes: ["jobs.read", "jobs.write"]
`

// Site is a folder with all the files that servers and their load need: CA, certificates, key encryption key, policy.
type Site struct{ Dir string }

// NewSite fills a folder.
func NewSite(dir string) (Site, error) {
	s := Site{dir}
	ca, err := mtls.NewCA("bench", 24*time.Hour, domain)
	if err != nil {
		return s, err
	}
	return s, errors.Join(
		mtls.WriteNew(s.path("ca.pem"), ca.CertPEM(), 0o644),
		s.issue(ca, "server", mtls.Template{SPIFFEID: serverID, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true}),
		s.issue(ca, "worker", mtls.Template{SPIFFEID: workerID, Client: true}),
		keyring.GenerateFileKEK(s.path("kek.key")),
		os.WriteFile(s.path("policy.yaml"), []byte(benchPolicy), 0o600),
	)
}

func (s Site) issue(ca *mtls.CA, name string, t mtls.Template) error {
	cert, key, err := ca.Issue(t)
	if err != nil {
		return err
	}
	return errors.Join(mtls.WriteNew(s.path(name+".pem"), cert, 0o644), mtls.WriteNew(s.path(name+".key"), key, 0o600))
}

func (s Site) path(name string) string { return filepath.Join(s.Dir, name) }

func (s Site) files(name string) mtls.Files {
	return mtls.Files{Cert: s.path(name + ".pem"), Key: s.path(name + ".key"), CA: s.path("ca.pem")}
}

// ClientTLS is how the load connects.
func (s Site) ClientTLS() (*tls.Config, error) {
	source, err := mtls.Open(s.files("worker"))
	if err != nil {
		return nil, err
	}
	return source.ClientTLS(serverID)
}
