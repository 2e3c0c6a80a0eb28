// Package starter makes the folder that a first broker runs from: a development CA, certificates, a key encryption key, a config and a
// policy. "tokenbrokerd init" and "tokenbrokerd dev" both make theirs here.
//
// It never overwrites a file: what stands in the way is reported before anything is written. Keys are open to their owner alone.
package starter

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/mtls"
)

const (
	caLife   = 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
)

// addr is where the broker serves if its config does not say.
const addr = "127.0.0.1:8443"

// KEK is the file with the key encryption key, after the Prefix.
const KEK = "kek.key"

//go:embed templates/tokenbroker.yaml
var configTemplate string

//go:embed templates/policy.yaml
var policyTemplate string

// Folder is what to make.
type Folder struct {
	Dir, TrustDomain string
	Prefix           string    // of the names of key and policy; "" = those that the config which Make writes then names
	Ends             time.Time // of the certificates; set by Make and MakePKI
}

// Path is where a file of the folder lies.
func (f Folder) Path(name string) string { return filepath.Join(f.Dir, name) }

// Env is what a shell reads to speak to the broker at an address as one of the folder's identities.
func (f Folder) Env(addr, identity string) string {
	var b strings.Builder
	for _, v := range [][2]string{{"ADDR", addr}, {"CA", f.Path("ca.pem")}, {"CERT", f.Path(identity + ".pem")}, {"KEY", f.Path(identity + ".key")}} {
		fmt.Fprintf(&b, "export TOKENBROKER_%s=%s\n", v[0], Quote(v[1]))
	}
	return b.String()
}

// Quote makes a text one word of a shell.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Make writes all that "tokenbrokerd serve" needs: a CA, the broker's certificate, those of an operator and a worker, a key encryption
// key, tokenbroker.yaml and policy.yaml. And what speaks to that broker needs: env for the operator, worker.env for the worker. With a
// Prefix there is no tokenbroker.yaml: nobody is to serve from such a folder.
func (f *Folder) Make() error {
	domain, err := spiffeid.TrustDomainFromString(f.TrustDomain)
	if err != nil {
		return fmt.Errorf("--trust-domain %q: %w", f.TrustDomain, err)
	}
	f.TrustDomain = domain.Name()
	if f.Dir, err = filepath.Abs(f.Dir); err != nil {
		return err
	}
	texts, err := f.texts()
	if err != nil {
		return err
	}
	id := "spiffe://" + f.TrustDomain
	return f.write(texts, map[string]string{"operator": id + "/operator/admin", "worker": id + "/worker/example"}, f.TrustDomain)
}

// MakePKI writes a CA, the broker's certificate, a key encryption key, and a client certificate for each identity: NAME.pem and NAME.key
// for the SPIFFE ID under that name. The CA may certify any trust domain: nobody but the folder's broker is to trust it, which has no SPIFFE
// ID itself, and so believes the CA in all of them.
func (f *Folder) MakePKI(identities map[string]string) error {
	return f.write(nil, identities)
}

// texts makes the config, the policy, and the settings of those who speak to the broker.
func (f *Folder) texts() ([]file, error) {
	files := []file{{"env", []byte(f.Env(addr, "operator")), 0o600}, {"worker.env", []byte(f.Env(addr, "worker")), 0o600}}
	templates := map[string]string{f.Prefix + "policy.yaml": policyTemplate}
	if f.Prefix == "" {
		templates["tokenbroker.yaml"] = configTemplate
	}
	for name, text := range templates {
		var b bytes.Buffer
		if err := template.Must(template.New(name).Parse(text)).Execute(&b, f); err != nil {
			return nil, err
		}
		files = append(files, file{name, b.Bytes(), 0o600})
	}
	return files, nil
}

type file struct {
	name string
	data []byte
	perm fs.FileMode
}

// write makes certificates, and writes them with the other files and a key encryption key.
func (f *Folder) write(files []file, identities map[string]string, permit ...string) error {
	f.Ends = time.Now().Add(leafLife)
	certificates, err := f.certify(identities, permit)
	if err != nil {
		return err
	}
	files = append(files, certificates...)
	if err := f.absent(files); err != nil {
		return err
	}
	for _, w := range files {
		if err := os.MkdirAll(filepath.Dir(f.Path(w.name)), 0o700); err != nil {
			return err
		}
	}
	if err := keyring.GenerateFileKEK(f.Path(f.Prefix + KEK)); err != nil {
		return err
	}
	for _, w := range files {
		if err := mtls.WriteNew(f.Path(w.name), w.data, w.perm); err != nil {
			return err
		}
	}
	return nil
}

func (f *Folder) absent(files []file) error {
	var errs []error
	for _, w := range append(files, file{name: f.Prefix + KEK}) {
		if _, err := os.Lstat(f.Path(w.name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s is there already: choose another folder, or move it away", f.Path(w.name)))
		}
	}
	return errors.Join(errs...)
}

// certify makes a CA, the broker's certificate, and one for each identity.
func (f *Folder) certify(identities map[string]string, permit []string) ([]file, error) {
	ca, err := mtls.NewCA("tokenbroker development CA", caLife, permit...)
	if err != nil {
		return nil, err
	}
	caKey, err := ca.KeyPEM()
	if err != nil {
		return nil, err
	}
	files := []file{{"ca.pem", ca.CertPEM(), 0o644}, {"ca.key", caKey, 0o600}}
	server := mtls.Template{DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, Server: true}
	if len(permit) > 0 { // a broker with a trust domain of its own believes this CA in nothing else
		server.SPIFFEID = "spiffe://" + f.TrustDomain + "/broker"
	}
	templates := map[string]mtls.Template{"server": server}
	for name, id := range identities {
		templates[name] = mtls.Template{SPIFFEID: id, Client: true}
	}
	for _, name := range slices.Sorted(maps.Keys(templates)) {
		t := templates[name]
		t.NotAfter = f.Ends
		cert, key, err := ca.Issue(t)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name + ".pem", cert, 0o644}, file{name + ".key", key, 0o600})
	}
	return files, nil
}
