// Package recipes_test runs what the pages of this folder, and docs/verify.md, tell to do.
//
// A command of a page is not copied into a script: the script in testdata names it by how it begins, and the page's own text is run. Files
// that a page shows are written from the page, too. What a page says and no script runs fails the test. Hosts, ports and folders
// are other ones here: see substitutions.
package recipes_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain builds the commands once and puts them first in PATH, without the race detector, which is for what runs in this process.
func TestMain(m *testing.M) {
	dir, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func build() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "recipes-"); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-race=false", "-o", dir+"/", "../../cmd/tokenctl", "../../cmd/tokenbrokerd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the commands: %w\n%s", err, out)
	}
	return dir, os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// TestRecipes runs the script of each page, and then looks whether all of the page was run.
func TestRecipes(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			t.Run("script", func(t *testing.T) {
				testscript.Run(t, testscript.Params{
					Files:               []string{filepath.Join("testdata", p.name+".txt")},
					RequireExplicitExec: true,
					Setup: func(env *testscript.Env) error {
						s, err := newStage(env, p)
						env.Values[stageKey{}] = s
						return err
					},
					Cmds: map[string]func(*testscript.TestScript, bool, []string){
						"page": pageCommand, "tries": triesCommand, "start": startCommand, "as": asCommand, "api": apiCommand, "broker": brokerCommand, "eventually": eventually,
						"cron": cronCommand, "unit": unitCommand, "workflow": workflowCommand, "cronjob": cronjobCommand, "unseen": unseenCommand,
						"elsewhere": elsewhereCommand, "module": moduleCommand, "node-modules": nodeModulesCommand, "background": backgroundCommand, "end": endCommand,
					},
				})
			})
			p.complete(t)
		})
	}
}
