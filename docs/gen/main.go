// Command gen writes the parts of the documentation that are made from tables: docs/providers.md from the built-in profiles, and the tables
// of docs/errors.md, between their marks, from package explain. Run it by make docs, in the folder that holds docs.
//
// A test of it fails when the documents are not what the tables say.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := write("docs"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// documents are the files within the folder of the documentation that are written, each with what makes it of what it was.
var documents = []struct {
	name string
	make func(old string) (string, error)
}{
	{"errors.md", errorTables},
	{"providers.md", func(string) (string, error) { return providerPages(), nil }},
}

func write(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, d := range documents {
		old, err := root.ReadFile(d.name)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		text, err := d.make(string(old))
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if err := root.WriteFile(d.name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
