package examples_test

import (
	"fmt"
	"os/exec"
	"sync"
)

// needPython asks whether the interpreter has what the example imports.
func needPython() error {
	if out, err := exec.Command(python(), "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		return fmt.Errorf("%s has no grpcio and protobuf: make deps, or apt-get install python3-grpcio python3-protobuf: %w\n%s", python(), err, out)
	}
	return nil
}

// compiled is compile, once.
var compiled = sync.OnceValue(compile)

// compile makes typescript/dist.
func compile() error {
	cmd := exec.Command("node", "node_modules/typescript/bin/tsc")
	cmd.Dir = "typescript"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the example (after make deps): %w\n%s", err, out)
	}
	return nil
}
