package subject

import (
	"crypto/tls"
	"errors"
	"fmt"
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

// fullPolicy is as long as that of a company: rules by identity, by pattern, with subjects and audiences, and the one that is used behind
// them all.
func fullPolicy() []byte {
	b := []byte("version: 1\nrules:\n")
	rule := func(name, identity, credentials, scopes string) {
		b = fmt.Appendf(b, "  - name: %s\n    identities: [%q]\n    actions: [\"token.*\"]\n    credentials: [%q]\n    scopes: [%s]\n"+
			"    subjects: [\"*@bench.example\"]\n    audiences: [\"https://*.bench.example\"]\n", name, identity, credentials, scopes)
	}
	for i := range policyPatterns {
		rule(fmt.Sprintf("pattern-%d", i), "spiffe://"+domain+"/worker/*", fmt.Sprintf("team-%d/**", i), `"other.read", "other.write"`)
	}
	for i := range policyRules - policyPatterns - 1 {
		rule(fmt.Sprintf("team-%d", i), fmt.Sprintf("spiffe://%s/team-%d/*", domain, i), fmt.Sprintf("team-%d/*", i), `"other.*"`)
	}
	rule("load", workerID, "bench/*", `"jobs.read", "jobs.write"`)
	return b
}

// How many rules the policy has, and how many of them name the load's identity by a pattern.
const (
	policyRules    = 200
	policyPatterns = 50
)

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
		os.WriteFile(s.path("policy.yaml"), fullPolicy(), 0o600),
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
