package recipes_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// agentUnit is where docs/agent.md puts the agent's unit.
const agentUnit = "/etc/systemd/system/tokenbroker-agent.service"

// TestTheAgentsUnitIsOneThatSystemdTakes looks at the unit of docs/agent.md, on which the page of the timer depends.
func TestTheAgentsUnitIsOneThatSystemdTakes(t *testing.T) {
	data, err := os.ReadFile("../agent.md")
	if err != nil {
		t.Fatal(err)
	}
	var unit string
	for _, found := range fence.FindAllStringSubmatch(string(data), -1) {
		if strings.HasPrefix(found[2], "# "+agentUnit+"\n") {
			unit = found[2]
		}
	}
	for _, section := range []string{"[Unit]\n", "[Service]\n", "[Install]\n"} {
		if !strings.Contains(unit, "\n"+section) {
			t.Errorf("the unit has no %s", section)
		}
	}
	for line := range strings.Lines(unit) {
		if at := strings.Index(line, "#"); at > 0 { // systemd takes it for a part of the value
			t.Errorf("a remark is behind a value: %s", line)
		}
	}
	verifyUnit(t, filepath.Base(agentUnit), unit)
}

// verifyUnit has a unit judged by systemd, if that is here.
func verifyUnit(t *testing.T, name, unit string) {
	t.Helper()
	program, err := exec.LookPath("tokenctl")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(unit, "/usr/local/bin/tokenctl", program)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		return
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), name) {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}
