package examples_test

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

func TestATokenThatIsPrintedShowsNoSecret(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		l          language
		dir, print string
	}{
		{languages[0], "python", `import tokenbroker; t = tokenbroker.Token("hidden", "Bearer", (), 0, 7, {}); print(t, repr(t), f"{t}", [t], "%s" % [t])`},
		{languages[1], "typescript/dist", `import("./tokenbroker.js").then(({ Token }) => { const t = new Token("hidden", "Bearer", [], new Date(0), 7n, {});
			console.log(t, [t], String(t), Object.values(t), t.reveal().length); })`},
	} {
		flag := map[string]string{"Python": "-c", "TypeScript": "-e"}[tc.l.name]
		cmd := exec.Command(tc.l.command(t)[0], flag, tc.print)
		cmd.Dir = tc.dir
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "7") || strings.Contains(string(out), "hidden") {
			t.Errorf("%s prints %q, %v, want the generation and no secret", tc.l.name, out, err)
		}
	}
}

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
