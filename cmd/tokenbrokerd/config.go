package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker/daemon"
	"github.com/tokenbroker/tokenbroker/grant"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/provider"
)

// maxConfigBytes bounds what is read of a config file.
const maxConfigBytes = 4 << 20

// file is the config file. docs/configuration.md describes it.
type file struct {
	Listen       string                      `yaml:"listen"`
	OpsListen    *string                     `yaml:"ops_listen"`
	AdminListen  string                      `yaml:"admin_listen"`
	AdminTLS     adminTLS                    `yaml:"admin_tls"`
	Consent      consentFile                 `yaml:"consent"`
	TLS          tlsFiles                    `yaml:"tls"`
	Identity     identity                    `yaml:"identity"`
	Store        storeFile                   `yaml:"store"`
	KEKFile      string                      `yaml:"kek_file"`
	PolicyFile   string                      `yaml:"policy_file"`
	Audit        auditFile                   `yaml:"audit"`
	DrainTimeout provider.Duration           `yaml:"drain_timeout"`
	Limits       limits                      `yaml:"limits"`
	Ambient      bool                        `yaml:"ambient_credentials"`
	Providers    map[string]provider.Profile `yaml:"providers"`
}

type tlsFiles struct {
	Cert     string `yaml:"cert_file"`
	Key      string `yaml:"key_file"`
	ClientCA string `yaml:"client_ca_file"`

	Domains      map[string]string `yaml:"trust_domains"`
	Workload     string            `yaml:"workload_api"`
	WorkloadWait provider.Duration `yaml:"workload_api_wait"`
	DenySerials  string            `yaml:"deny_serials_file"`
}

// adminTLS is who may reach the listener for operators.
type adminTLS struct {
	ClientCA string            `yaml:"client_ca_file"`
	Domains  map[string]string `yaml:"trust_domains"`
	AllowDNS bool              `yaml:"allow_dns"`
}

// consentFile is the listener for browsers.
type consentFile struct {
	Listen    string `yaml:"listen"`
	PublicURL string `yaml:"public_url"`
	Cert      string `yaml:"cert_file"`
	Key       string `yaml:"key_file"`
}

type identity struct {
	AllowDNS bool `yaml:"allow_dns"`
}

type storeFile struct {
	File    string `yaml:"file"`
	MaxSize int64  `yaml:"max_size"`
}

type auditFile struct {
	File          string `yaml:"file"`
	Sync          any    `yaml:"sync"`
	Checkpoint    string `yaml:"checkpoint_file"`
	CheckpointKey string `yaml:"checkpoint_key_file"`
}

// synced reads how sure a record has to be before an answer leaves: "write" = with the kernel, "fsync" = on the disk. false and true are
// what these were called before.
func (a auditFile) synced() (fsync bool, err error) {
	switch a.Sync {
	case nil, false, "write":
		return false, nil
	case true, "fsync":
		return true, nil
	}
	return false, errors.New("audit.sync: give write or fsync")
}

// settings are what flags and environment may set in place of the file.
type settings struct {
	config, listen, opsListen, store, kek, policy, audit string
}

func (s *settings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.config, "config", "", "config file (TOKENBROKERD_CONFIG; default tokenbroker.yaml)")
	f.StringVar(&s.listen, "listen", "", "address for gRPC (TOKENBROKERD_LISTEN)")
	f.StringVar(&s.opsListen, "ops-listen", "", `address for probes and metrics, "none" for none (TOKENBROKERD_OPS_LISTEN)`)
	f.StringVar(&s.store, "store", "", "database file (TOKENBROKERD_STORE)")
	f.StringVar(&s.kek, "kek-file", "", "key encryption key (TOKENBROKERD_KEK_FILE)")
	f.StringVar(&s.policy, "policy", "", "policy file (TOKENBROKERD_POLICY)")
	f.StringVar(&s.audit, "audit", "", "audit log (TOKENBROKERD_AUDIT)")
}

// pick is the precedence: flag, then environment, then file, then default.
func pick(flag, env, file, def string) string {
	return cmp.Or(flag, os.Getenv("TOKENBROKERD_"+env), file, def)
}

// load reads the config file and lays flags and environment over it. Relative paths in the file are relative to its folder; those
// of flags and environment to the working directory.
func (s *settings) load() (daemon.Config, error) {
	path := pick(s.config, "CONFIG", "", "tokenbroker.yaml")
	f, err := readFile(path)
	if err != nil {
		return daemon.Config{}, err
	}
	in := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(filepath.Dir(path), p)
	}
	for name, p := range f.Providers {
		p.CAFile = in(p.CAFile)
		f.Providers[name] = p
	}
	c := daemon.Config{
		Listen:    pick(s.listen, "LISTEN", f.Listen, "127.0.0.1:8443"),
		OpsListen: opsAddress(pick(s.opsListen, "OPS_LISTEN", value(f.OpsListen, "127.0.0.1:8081"), "none")),
		TLS:       mtls.Files{Cert: in(f.TLS.Cert), Key: in(f.TLS.Key), CA: in(f.TLS.ClientCA), Domains: inEach(in, f.TLS.Domains)},
		Workload:  daemon.Workload{Socket: f.TLS.Workload, Wait: time.Duration(f.TLS.WorkloadWait)},
		DenyFile:  in(f.TLS.DenySerials),
		Admin: daemon.Admin{Listen: f.AdminListen, AllowDNS: f.AdminTLS.AllowDNS,
			TLS: mtls.Files{CA: in(f.AdminTLS.ClientCA), Domains: inEach(in, f.AdminTLS.Domains)}},
		Consent:     daemon.Consent{Listen: f.Consent.Listen, PublicURL: f.Consent.PublicURL, Cert: in(f.Consent.Cert), Key: in(f.Consent.Key)},
		AllowDNS:    f.Identity.AllowDNS,
		StorePath:   pick(s.store, "STORE", in(f.Store.File), in("tokenbroker.db")),
		StoreSize:   f.Store.MaxSize,
		KEKFile:     pick(s.kek, "KEK_FILE", in(f.KEKFile), ""),
		PolicyFile:  pick(s.policy, "POLICY", in(f.PolicyFile), ""),
		AuditFile:   pick(s.audit, "AUDIT", in(f.Audit.File), in("audit.jsonl")),
		Checkpoints: daemon.Checkpoints{File: in(f.Audit.Checkpoint), KeyFile: in(f.Audit.CheckpointKey)},
		DrainFor:    time.Duration(f.DrainTimeout),
		Limits:      f.Limits.server(),
		Providers:   f.Providers,
		Version:     version(),
	}
	if f.Ambient { // whoever may create a credential of google_adc speaks as this machine then
		c.Ambient = grant.AmbientFrom(os.Getenv, runtime.GOOS)
	}
	c.AuditSync, err = f.Audit.synced()
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return c, errors.Join(err, required(path, f, c))
}

// inEach is in for each file of a map.
func inEach(in func(string) string, files map[string]string) map[string]string {
	placed := map[string]string{}
	for name, p := range files {
		placed[name] = in(p)
	}
	return placed
}

// value is *p, or def where the key is absent. An empty value stays empty.
func value(p *string, def string) string {
	if p == nil {
		return def
	}
	return *p
}

func opsAddress(a string) string {
	if a == "none" {
		return ""
	}
	return a
}

// required reports all settings that are missing or can't be.
func required(path string, f file, c daemon.Config) error {
	var errs []error
	files := f.TLS.Workload == ""
	for _, r := range []struct {
		key, value string
		needed     bool
	}{{"tls.cert_file", f.TLS.Cert, files}, {"tls.key_file", f.TLS.Key, files},
		{"tls.client_ca_file", f.TLS.ClientCA, files && len(f.TLS.Domains) == 0},
		{"kek_file", c.KEKFile, true}, {"policy_file", c.PolicyFile, true}} {
		if r.needed && r.value == "" {
			errs = append(errs, fmt.Errorf("%s: %s is missing", path, r.key))
		}
	}
	values := append([]setting{{key: "store.max_size", value: float64(f.Store.MaxSize)}, {key: "drain_timeout", value: float64(f.DrainTimeout)},
		{key: "tls.workload_api_wait", value: float64(f.TLS.WorkloadWait)}}, f.Limits.values()...)
	for _, r := range values {
		switch {
		case r.value < 0:
			errs = append(errs, fmt.Errorf("%s: %s is negative", path, r.key))
		case math.IsNaN(r.value) || math.IsInf(r.value, 0):
			errs = append(errs, fmt.Errorf("%s: %s is no number that a limit can be", path, r.key))
		case r.small:
			errs = append(errs, fmt.Errorf("%s: %s is too small: give %s at least, or 0 for the default", path, r.key, r.least))
		}
	}
	return errors.Join(errs...)
}

// readFile decodes a config file, strictly.
func readFile(path string) (file, error) {
	var f file
	r, err := os.Open(path)
	if err != nil {
		return f, fmt.Errorf("read the config: %w; \"tokenbrokerd init DIR\" makes one", err)
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(io.LimitReader(r, maxConfigBytes+1))
	switch {
	case err != nil:
		return f, fmt.Errorf("read the config: %w", err)
	case len(data) > maxConfigBytes:
		return f, fmt.Errorf("read the config %s: it is larger than %d bytes", path, maxConfigBytes)
	}
	if err := decode(data, &f); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// decode reads one YAML document. Its errors say where, and quote nothing of the file but keys.
func decode(data []byte, f *file) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("not YAML: the parser gave up on it")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(f); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the file is empty")
		}
		return place(err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document: join them, or take the others out")
	}
	return nil
}

// place puts an error of the YAML reader on one line, with its place in the file and without the excerpt that it would print.
func place(err error) error {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil || at.GetToken().Position == nil {
		return err
	}
	pos := at.GetToken().Position
	return fmt.Errorf("line %d, column %d: %s", pos.Line, pos.Column, message(at))
}

// message is what is wrong, in words of the file: the reader speaks of Go types.
func message(err yaml.Error) string {
	var (
		kind   *yaml.TypeError
		beyond *yaml.OverflowError
	)
	switch {
	case errors.As(err, &beyond) && strings.HasPrefix(beyond.SrcNum, "-"):
		return "a number here must not be negative"
	case errors.As(err, &beyond):
		return "a number here must not be so large"
	case errors.As(err, &kind):
		return wanted(kind.DstType) + " is needed here"
	}
	return err.GetMessage()
}

// wanted says what a type is in a file.
func wanted(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		return wanted(t.Elem())
	}
	const section = "a section with keys of its own"
	words := map[reflect.Kind]string{reflect.String: "text", reflect.Bool: "true or false", reflect.Float64: "a number", reflect.Slice: "a list",
		reflect.Map: section, reflect.Struct: section}
	return cmp.Or(words[t.Kind()], "a whole number")
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Work with config files", Args: cobra.NoArgs, // without these a misspelt command would pass
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var s settings
	validate := &cobra.Command{
		Use: "validate", Short: "Check a config file and all that it names; touches no store", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.load()
			if err != nil {
				return err
			}
			warnings, err := daemon.Check(c)
			for _, w := range warnings {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return err
		},
	}
	s.flags(validate)
	cmd.AddCommand(validate)
	return cmd
}
