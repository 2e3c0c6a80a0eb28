package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/mtls"
)

const (
	caLife   = 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
)

//go:embed templates/tokenbroker.yaml
var configTemplate string

//go:embed templates/policy.yaml
var policyTemplate string

//go:embed templates/next.txt
var nextTemplate string

// starter is what init makes a folder from.
type starter struct {
	Dir, TrustDomain string
	Ends             time.Time
}

func initCommand() *cobra.Command {
	var s starter
	cmd := &cobra.Command{
		Use: "init DIR", Short: "Make a development CA, certificates, a key, a config and a policy", Args: cobra.ExactArgs(1),
		Long: `Makes, in DIR, all that "tokenbrokerd serve" needs: a development CA with certificates for the broker (for localhost and loopback),
an operator and a worker, a key encryption key, a config and a policy. Nothing that is there is overwritten.

The CA is for development. In production let your own PKI or SPIRE issue the certificates, and keep the key
encryption key apart from the database and its backups.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Dir = args[0]
			if err := s.make(); err != nil {
				return err
			}
			return template.Must(template.New("next").Parse(nextTemplate)).Execute(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().StringVar(&s.TrustDomain, "trust-domain", "tokenbroker.local", "SPIFFE trust domain of the certificates")
	return cmd
}

// make writes the folder. What stands in the way is reported before anything is written.
func (s *starter) make() error {
	if _, err := spiffeid.TrustDomainFromString(s.TrustDomain); err != nil {
		return fmt.Errorf("--trust-domain %q: %w", s.TrustDomain, err)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	s.Ends = time.Now().Add(leafLife)
	files, err := s.files()
	if err != nil {
		return err
	}
	if err := s.absent(files); err != nil {
		return err
	}
	if err := keyring.GenerateFileKEK(s.path("kek.key")); err != nil {
		return err
	}
	for _, f := range files {
		if err := mtls.WriteNew(s.path(f.name), f.data, f.perm); err != nil {
			return err
		}
	}
	return nil
}

func (s *starter) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *starter) absent(files []starterFile) error {
	var errs []error
	for _, f := range append(files, starterFile{name: "kek.key"}) {
		if _, err := os.Lstat(s.path(f.name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s is there already: choose another folder, or move it away", s.path(f.name)))
		}
	}
	return errors.Join(errs...)
}

type starterFile struct {
	name string
	data []byte
	perm fs.FileMode
}

// files makes the contents of all files but the key encryption key.
func (s *starter) files() ([]starterFile, error) {
	ca, err := mtls.NewCA("tokenbroker development CA", caLife, s.TrustDomain)
	if err != nil {
		return nil, err
	}
	caKey, err := ca.KeyPEM()
	if err != nil {
		return nil, err
	}
	files := []starterFile{{"ca.pem", ca.CertPEM(), 0o644}, {"ca.key", caKey, 0o600}}
	id := "spiffe://" + s.TrustDomain
	loopback := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for name, t := range map[string]mtls.Template{
		"server":   {SPIFFEID: id + "/broker", DNSNames: []string{"localhost"}, IPs: loopback, Server: true},
		"operator": {SPIFFEID: id + "/operator/admin", Client: true},
		"worker":   {SPIFFEID: id + "/worker/example", Client: true},
	} {
		t.NotAfter = s.Ends
		cert, key, err := ca.Issue(t)
		if err != nil {
			return nil, err
		}
		files = append(files, starterFile{name + ".pem", cert, 0o644}, starterFile{name + ".key", key, 0o600})
	}
	for name, text := range map[string]string{"tokenbroker.yaml": configTemplate, "policy.yaml": policyTemplate} {
		var b bytes.Buffer
		if err := template.Must(template.New(name).Parse(text)).Execute(&b, s); err != nil {
			return nil, err
		}
		files = append(files, starterFile{name, b.Bytes(), 0o600})
	}
	return files, nil
}
