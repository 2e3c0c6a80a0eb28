package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/goccy/go-yaml"
)

// Parse reads profiles from YAML: a map of provider name to [Profile]. It is strict: an unknown or repeated key and a
// value of the wrong type are errors that give line and column. It does not judge the values, see [New].
func Parse(data []byte) (map[string]Profile, error) {
	profiles := map[string]Profile{}
	if err := decode(data, &profiles); err != nil {
		return nil, fmt.Errorf("read providers: %w", err)
	}
	return profiles, nil
}

func decode(data []byte, into any) (err error) {
	defer func() { // the YAML reader gives up on some files by a panic
		if recover() != nil {
			err = errors.New("not YAML that can be read")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // an empty document: nothing configured
		}
		return place(err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document")
	}
	return nil
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
