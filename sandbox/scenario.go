package sandbox

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/goccy/go-yaml"
)

// Scenario is a server and its script, as a file has it.
type Scenario struct {
	Config `yaml:",inline"`
	Faults []FaultSpec `yaml:"faults"` // in order, for each issuer
}

// ParseScenario reads a scenario from YAML. It is strict: an unknown or repeated key and a value of the wrong type are
// errors that give line and column. The values are judged by [Scenario.New].
func ParseScenario(data []byte) (s Scenario, err error) {
	defer func() { // the YAML reader gives up on some files by a panic
		if recover() != nil {
			s, err = Scenario{}, errors.New("read scenario: not YAML that can be read")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return Scenario{}, fmt.Errorf("read scenario: %w", place(err))
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Scenario{}, errors.New("read scenario: more than one YAML document")
	}
	return s, nil
}

// place rewrites an error of the YAML reader on one line, without the excerpt of the file that it would print.
func place(err error) error {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil || at.GetToken().Position == nil {
		return err
	}
	pos := at.GetToken().Position
	return fmt.Errorf("line %d, column %d: %s", pos.Line, pos.Column, at.GetMessage())
}

// New makes the server and starts the script, or returns everything that is wrong.
func (s Scenario) New() (*Server, error) {
	srv, err := New(s.Config)
	if err != nil {
		return nil, err
	}
	var errs []error
	for n, spec := range s.Faults {
		f, err := spec.Fault()
		if err == nil {
			err = srv.Try(spec.Issuer, f)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("scenario: entry %d of faults: %w", n+1, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return srv, nil
}

// UnmarshalYAML reads a key from its id and pem, a public key or a certificate in PEM.
func (k *Key) UnmarshalYAML(data []byte) error {
	var file struct {
		ID  string `yaml:"id"`
		PEM string `yaml:"pem"`
	}
	if err := yaml.UnmarshalWithOptions(data, &file, yaml.Strict()); err != nil {
		return place(err)
	}
	block, _ := pem.Decode([]byte(file.PEM))
	if block == nil {
		return fmt.Errorf("key %q: pem holds no PEM block", file.ID)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if cert, certErr := x509.ParseCertificate(block.Bytes); certErr == nil {
		public, err = cert.PublicKey, nil
	}
	if err != nil {
		return fmt.Errorf("key %q: pem holds no public key and no certificate", file.ID)
	}
	k.ID, k.Public = file.ID, public
	return nil
}
