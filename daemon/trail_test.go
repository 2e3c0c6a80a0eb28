package daemon_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/brokertest"
	"github.com/tokenbroker/tokenbroker/daemon"
)

func readAudit(t *testing.T, b *brokertest.Broker) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWhatTheBrokerDoesOfItselfIsRecorded(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{Ops: true, WatchEvery: 20 * time.Millisecond})
	b.SetPolicy("version: 1\nrules: nonsense\n")
	eventually(t, "it is recorded", func() bool { return strings.Contains(readAudit(t, b), `"action":"policy.refuse"`) })
	b.SetPolicy(strings.Replace(brokertest.DefaultPolicy, "example/*", "example/**", 1))
	eventually(t, "it is recorded", func() bool { return strings.Contains(readAudit(t, b), `"action":"policy.reload"`) })
	b.Stop()
	text := readAudit(t, b)
	for _, want := range []string{`"kind":"system","cert":"`, `"action":"start"`, `"reason":"grpc `, `, ops 127.0.0.1:`, `"action":"stop"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in the audit log:\n%s", want, text)
		}
	}
}

func TestADeletedAuditLogIsToldToOperators(t *testing.T) {
	log := &logged{}
	b := brokertest.Start(t, brokertest.Config{Ops: true, Log: log})
	b.AddClientCredentials("example/api", "files.read")
	b.Token("example/api")
	if err := os.Remove(filepath.Join(b.Dir, "audit.jsonl")); err != nil {
		t.Fatal(err)
	}
	b.Token("example/api")
	if _, text := ask(t, b, http.MethodGet, "/metrics"); !strings.Contains(text, `tokenbroker_trouble_total{kind="audit_deleted"} 1`) {
		t.Error("no metric tells of it")
	}
	if got := log.lines("the audit log was deleted"); len(got) != 1 {
		t.Errorf("got %d lines in the log, want 1", len(got))
	}
}

func TestTheTokenThatAnExchangeBringsIsNamedAndNotShown(t *testing.T) {
	b := brokertest.Start(t, brokertest.Config{})
	b.AddClientCredentials("example/api", "files.read")
	token := b.Token("example/api")
	b.Stop()
	text := readAudit(t, b)
	if strings.Contains(text, token.GetAccessToken()) {
		t.Error("the audit log holds the token")
	}
	var result, call string
	for line := range strings.Lines(text) {
		switch {
		case strings.Contains(line, `"kind":"exchange_result"`):
			result = line
		case strings.Contains(line, `"action":"token.get"`):
			call = line
		}
	}
	_, mac, _ := strings.Cut(result, `"token_mac":"`)
	mac, _, _ = strings.Cut(mac, `"`)
	if mac == "" || !strings.Contains(call, mac) {
		t.Errorf("want one name in\n%s%s", result, call)
	}
	for _, field := range []string{`"expire_time":"`, `"scopes_granted":["files.read"]`, `"cert_serial":"`} {
		if !strings.Contains(call, field) {
			t.Errorf("the call has no %s: %s", field, call)
		}
	}
}

func TestCheckpointsGetToTheirSecondPlace(t *testing.T) {
	dir := t.TempDir()
	place := filepath.Join(dir, "mount", "checkpoints.jsonl")
	if err := os.Mkdir(filepath.Dir(place), 0o700); err != nil { // is looked at before the start
		t.Fatal(err)
	}
	b := brokertest.Start(t, brokertest.Config{Checkpoints: daemon.Checkpoints{KeyFile: filepath.Join(dir, "checkpoint.key"), File: place}})
	b.Stop()
	points, err := os.ReadFile(place)
	if err != nil || !bytes.Contains(points, []byte(`"sig":"`)) || !strings.Contains(readAudit(t, b), string(bytes.TrimSpace(points))) {
		t.Errorf("got %q, %v, want the checkpoint of the log", points, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "checkpoint.pub")); err != nil {
		t.Errorf("no public key: %v", err)
	}
}

func TestCheckSaysWhatIsWrongWithThePlacesOfTheAuditLog(t *testing.T) {
	dir := t.TempDir()
	open, public := filepath.Join(dir, "open.key"), filepath.Join(dir, "checkpoint.pub")
	if err := errors.Join(os.WriteFile(open, nil, 0o600), os.Chmod(open, 0o644), os.WriteFile(public, []byte("-----BEGIN PUBLIC KEY-----\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]daemon.Config{
		"may be read by others":                  {AuditFile: filepath.Join(dir, "a"), Checkpoints: daemon.Checkpoints{KeyFile: open}},
		"it is not one private key":              {AuditFile: filepath.Join(dir, "a"), Checkpoints: daemon.Checkpoints{KeyFile: public}},
		"audit.file: ":                           {AuditFile: dir},
		"audit.checkpoint_file: stat ":           {AuditFile: filepath.Join(dir, "a"), Checkpoints: daemon.Checkpoints{KeyFile: filepath.Join(dir, "k"), File: filepath.Join(dir, "none", "c")}},
		"is of no use without":                   {AuditFile: filepath.Join(dir, "a"), Checkpoints: daemon.Checkpoints{File: filepath.Join(dir, "c")}},
		"has to be another file than audit.file": {AuditFile: filepath.Join(dir, "a"), Checkpoints: daemon.Checkpoints{KeyFile: filepath.Join(dir, "k"), File: filepath.Join(dir, "a")}},
	} {
		if _, err := daemon.Check(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
