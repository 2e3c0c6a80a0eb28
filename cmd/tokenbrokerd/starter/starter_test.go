package starter_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/starter"
	"github.com/tokenbroker/tokenbroker/keyring"
	"github.com/tokenbroker/tokenbroker/mtls"
	"github.com/tokenbroker/tokenbroker/policy"
)

// names are the files of a folder, with their modes.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		all = append(all, info.Mode().String()+" "+rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func TestAFolderHasAllThatABrokerNeeds(t *testing.T) {
	f := starter.Folder{Dir: filepath.Join(t.TempDir(), "new"), TrustDomain: "example.org"}
	if err := f.Make(); err != nil {
		t.Fatal(err)
	}
	want := []string{"-rw------- ca.key", "-rw------- env", "-rw------- kek.key", "-rw------- operator.key", "-rw------- policy.yaml", "-rw------- server.key",
		"-rw------- tokenbroker.yaml", "-rw------- worker.env", "-rw------- worker.key", "-rw-r--r-- ca.pem", "-rw-r--r-- operator.pem", "-rw-r--r-- server.pem", "-rw-r--r-- worker.pem"}
	if got := names(t, f.Dir); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if left := time.Until(f.Ends); left < 80*24*time.Hour || left > 100*24*time.Hour {
		t.Errorf("the certificates end in %s, want about 90 days", left)
	}
	p, err := policy.Load(f.Path("policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Current().Identities(), []string{"spiffe://example.org/operator/*", "spiffe://example.org/worker/example"}; !slices.Equal(got, want) {
		t.Errorf("the policy names %q, want %q", got, want)
	}
	if _, err := keyring.FileKEK(f.Path(starter.KEK)); err != nil {
		t.Error(err)
	}
}

// TestThePolicySaysWhyLintDoubtsIt has every finding explained where it is, and nothing explained that is no finding.
func TestThePolicySaysWhyLintDoubtsIt(t *testing.T) {
	f := starter.Folder{Dir: filepath.Join(t.TempDir(), "new"), TrustDomain: "example.org"}
	if err := f.Make(); err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load(f.Path("policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(f.Path("policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var found, told []string
	for _, finding := range p.Current().Lint(policy.Facts{Now: time.Now()}) {
		found = append(found, finding.Rule+", "+finding.Check)
	}
	for line := range strings.Lines(string(text)) {
		if what, why, ok := strings.Cut(strings.TrimPrefix(line, "#   "), ": "); ok && strings.HasPrefix(line, "#   ") && why != "" {
			told = append(told, what)
		}
	}
	slices.Sort(found)
	slices.Sort(told)
	if !slices.Equal(found, told) {
		t.Errorf("lint finds %q, and the policy tells of %q", found, told)
	}
}

func TestAFolderWithAPrefixIsNotOneToServeFrom(t *testing.T) {
	f := starter.Folder{Dir: t.TempDir(), TrustDomain: "example.org", Prefix: "its-"}
	if err := f.Make(); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(names(t, f.Dir), " ")
	for _, want := range []string{"-rw------- its-kek.key", "-rw------- its-policy.yaml", "-rw------- worker.env"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, no := range []string{" kek.key", " policy.yaml", "tokenbroker.yaml"} {
		if strings.Contains(got, no) {
			t.Errorf("got %s, want no%s", got, no)
		}
	}
	if err := f.Make(); err == nil || !strings.Contains(err.Error(), "its-kek.key is there already") {
		t.Errorf("a second time: got %v", err)
	}
}

func TestAPKIHasACertificateForEachIdentity(t *testing.T) {
	f := starter.Folder{Dir: t.TempDir(), TrustDomain: "tokenbroker.local"}
	ids := map[string]string{"identities/a": "spiffe://one.example/a", "identities/b": "spiffe://two.example/b/c"}
	if err := f.MakePKI(ids); err != nil {
		t.Fatal(err)
	}
	for name := range ids {
		if _, err := mtls.Open(mtls.Files{Cert: f.Path(name + ".pem"), Key: f.Path(name + ".key"), CA: f.Path("ca.pem")}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := strings.Join(names(t, f.Dir), " "); strings.Contains(got, "yaml") || !strings.Contains(got, "-rw------- identities/a.key") {
		t.Errorf("got %s", got)
	}
}

func TestWhatIsThereIsNotOverwritten(t *testing.T) {
	f := starter.Folder{Dir: t.TempDir(), TrustDomain: "example.org"}
	for _, name := range []string{starter.KEK, "worker.pem"} {
		if err := os.WriteFile(f.Path(name), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := f.Make()
	for _, want := range []string{"kek.key is there already", "worker.pem is there already: choose another folder"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if got := names(t, f.Dir); len(got) != 2 {
		t.Errorf("got %q, want only what was there", got)
	}
}

func TestWhatCannotBeIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	for name, err := range map[string]error{
		"a trust domain": (&starter.Folder{Dir: dir, TrustDomain: "no such domain"}).Make(),
		"an identity":    (&starter.Folder{Dir: dir, TrustDomain: "example.org"}).MakePKI(map[string]string{"a": "spiffe://Not An/Identity"}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the folder is there: %v", name, err)
		}
	}
	if err := (&starter.Folder{Dir: "/dev/null/x", TrustDomain: "example.org"}).Make(); err == nil {
		t.Error("a folder that can't be made: no error")
	}
}

func TestAShellReadsHowToSpeakToTheBroker(t *testing.T) {
	f := starter.Folder{Dir: filepath.Join(t.TempDir(), "it's a $HOME `x`"), TrustDomain: "example.org"}
	if err := f.Make(); err != nil {
		t.Fatal(err)
	}
	for file, who := range map[string]string{"env": "operator", "worker.env": "worker"} {
		sh := exec.CommandContext(t.Context(), "sh", "-c", `. "$0"; printf '%s\n' "$TOKENBROKER_ADDR" "$TOKENBROKER_CA" "$TOKENBROKER_CERT" "$TOKENBROKER_KEY"`, f.Path(file))
		sh.Dir = t.TempDir() // from anywhere
		out, err := sh.Output()
		want := strings.Join([]string{"127.0.0.1:8443", f.Path("ca.pem"), f.Path(who + ".pem"), f.Path(who + ".key"), ""}, "\n")
		if err != nil || string(out) != want {
			t.Errorf("%s: got %q, %v, want %q", file, out, err, want)
		}
	}
}
