package recipes_test

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/testscript"
)

// alone runs a program with nothing in its environment but what is given, and with whose certificates to trust.
func alone(ts *testscript.TestScript, env map[string]string, program string, args ...string) {
	all := stageOf(ts).trust()
	maps.Copy(all, env)
	words := []string{"-i"}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		words = append(words, name+"="+all[name])
	}
	ts.Check(ts.Exec("env", append(append(words, program), args...)...))
}

// assignment is a line that sets a variable.
func assignment(line string) (name, value string, is bool) {
	name, value, is = strings.Cut(line, "=")
	return name, strings.Trim(value, `"`), is && regexp.MustCompile(`^[A-Z_]+$`).MatchString(name)
}

// cronCommand is "cron PATH": each job of the crontab that the page shows is run as cron runs it: by sh, with the environment that cron gives.
func cronCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	path, err := s.take(args[0])
	ts.Check(err)
	env := map[string]string{"HOME": s.dir + "/home", "LOGNAME": "reports", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
	job := regexp.MustCompile(`^(?:[0-9*/,-]+\s+){5}(.+)$`)
	for line := range strings.Lines(ts.ReadFile(path)) {
		line = strings.TrimSpace(line)
		if name, value, is := assignment(line); is {
			env[name] = value
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		found := job.FindStringSubmatch(line)
		if found == nil || strings.Contains(line, "%") { // which cron takes for a new line
			ts.Fatalf("%q is no job for cron", line)
		}
		alone(ts, env, "/bin/sh", "-c", found[1])
	}
}

// unitCommand is "unit PATH…": the unit files that the page shows are judged by systemd, if it is here, and what a service starts is run.
func unitCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	var paths []string
	for _, arg := range args {
		path, err := s.take(arg)
		ts.Check(err)
		ts.Check(os.Chmod(path, 0o600))
		paths = append(paths, path)
	}
	if _, err := exec.LookPath("systemd-analyze"); err == nil {
		ts.Check(ts.Exec("systemd-analyze", append([]string{"verify", "--man=no"}, paths...)...))
		for line := range strings.Lines(ts.ReadFile("stderr")) {
			if strings.Contains(line, s.dir) || strings.Contains(line, "Unknown") {
				ts.Fatalf("systemd-analyze: %s", line)
			}
		}
	}
	for _, path := range paths {
		runUnit(ts, ts.ReadFile(path))
	}
}

// runUnit runs what a unit starts. It knows the settings that the pages use, and refuses others.
func runUnit(ts *testscript.TestScript, text string) {
	s := stageOf(ts)
	known := regexp.MustCompile(`^(Description|Documentation|After|Wants|Type|User|RuntimeDirectory|RuntimeDirectoryMode|NoNewPrivileges|ProtectSystem|ProtectHome|PrivateTmp|StateDirectory|` +
		`OnCalendar|Persistent|RandomizedDelaySec|WantedBy|Restart|SyslogIdentifier)=.`)
	env := map[string]string{"PATH": s.dir + "/bin:/usr/bin:/bin"}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch value := ""; {
		case line == "" || line[0] == '#' || line[0] == '[' || known.MatchString(line):
		case cut(line, "Environment=", &value):
			name, value, is := assignment(value)
			if !is {
				ts.Fatalf("%q sets no variable", line)
			}
			env[name] = strings.ReplaceAll(value, "%t", s.dir+"/run")
		case cut(line, "ExecStart=", &value):
			if strings.ContainsAny(value, "|;&<>$`%") { // which mean nothing to systemd, or something else than to sh
				ts.Fatalf("%q wants a shell", line)
			}
			alone(ts, env, "/bin/sh", "-c", "exec "+value)
		default:
			ts.Fatalf("what is %q?", line)
		}
	}
}

func cut(line, prefix string, value *string) (is bool) {
	*value, is = strings.CutPrefix(line, prefix)
	return is
}

// strictly reads YAML that the page shows. A field that is not known here is an error.
func strictly(ts *testscript.TestScript, path string, into any) {
	at, err := stageOf(ts).take(path)
	ts.Check(err)
	ts.Check(yaml.NewDecoder(bytes.NewReader([]byte(ts.ReadFile(at))), yaml.DisallowUnknownField()).Decode(into))
}

type workflow struct {
	Name        string            `yaml:"name"`
	On          map[string]any    `yaml:"on"`
	Permissions map[string]string `yaml:"permissions"`
	Env         map[string]string `yaml:"env"`
	Jobs        map[string]struct {
		RunsOn []string `yaml:"runs-on"`
		Steps  []struct {
			Name string            `yaml:"name"`
			Uses string            `yaml:"uses"`
			Env  map[string]string `yaml:"env"`
			Run  string            `yaml:"run"`
		} `yaml:"steps"`
	} `yaml:"jobs"`
}

// workflowCommand is "workflow PATH": the steps of the workflow are run as a runner runs them, by bash -e, in one folder.
func workflowCommand(ts *testscript.TestScript, _ bool, args []string) {
	var w workflow
	strictly(ts, args[0], &w)
	s := stageOf(ts)
	for _, job := range w.Jobs {
		for _, step := range job.Steps {
			if step.Run == "" {
				continue
			}
			env := map[string]string{"PATH": s.dir + "/bin:/usr/bin:/bin", "HOME": s.dir + "/home", "GITHUB_ACTIONS": "true"}
			maps.Copy(env, w.Env)
			maps.Copy(env, step.Env)
			ts.Check(os.WriteFile(ts.MkAbs("step.sh"), []byte(step.Run), 0o600))
			alone(ts, env, "bash", "-e", ts.MkAbs("step.sh"))
		}
	}
}

type container struct {
	Name    string   `yaml:"name"`
	Image   string   `yaml:"image"`
	Command []string `yaml:"command"`
	Args    []string `yaml:"args"`
	Env     []struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	} `yaml:"env"`
	SecurityContext map[string]any `yaml:"securityContext"`
	VolumeMounts    []struct {
		Name      string `yaml:"name"`
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type volume struct {
	Name string `yaml:"name"`
	CSI  *struct {
		Driver   string `yaml:"driver"`
		ReadOnly bool   `yaml:"readOnly"`
	} `yaml:"csi"`
	EmptyDir *struct {
		Medium string `yaml:"medium"`
	} `yaml:"emptyDir"`
}

type cronJob struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Metadata   map[string]string `yaml:"metadata"`
	Spec       struct {
		Schedule          string `yaml:"schedule"`
		ConcurrencyPolicy string `yaml:"concurrencyPolicy"`
		JobTemplate       struct {
			Spec struct {
				BackoffLimit int `yaml:"backoffLimit"`
				Template     struct {
					Spec struct {
						RestartPolicy      string      `yaml:"restartPolicy"`
						ServiceAccountName string      `yaml:"serviceAccountName"`
						Containers         []container `yaml:"containers"`
						Volumes            []volume    `yaml:"volumes"`
					} `yaml:"spec"`
				} `yaml:"template"`
			} `yaml:"spec"`
		} `yaml:"jobTemplate"`
	} `yaml:"spec"`
}

// cronjobCommand is "cronjob PATH": the container's command is run with the container's environment.
func cronjobCommand(ts *testscript.TestScript, _ bool, args []string) {
	var j cronJob
	strictly(ts, args[0], &j)
	pod := j.Spec.JobTemplate.Spec.Template.Spec
	if j.APIVersion != "batch/v1" || j.Kind != "CronJob" || len(pod.Containers) != 1 || pod.RestartPolicy != "Never" {
		ts.Fatalf("got %+v, want a CronJob with one container", j)
	}
	c := pod.Containers[0]
	for _, m := range c.VolumeMounts {
		if !slices.ContainsFunc(pod.Volumes, func(v volume) bool { return v.Name == m.Name }) {
			ts.Fatalf("there is no volume %q", m.Name)
		}
	}
	s := stageOf(ts)
	env := map[string]string{"PATH": s.dir + "/bin:/usr/bin:/bin", "HOME": filepath.Join(s.dir, "home")}
	for _, v := range c.Env {
		env[v.Name] = v.Value
	}
	command := slices.Concat(c.Command, c.Args)
	alone(ts, env, command[0], command[1:]...)
}

// moduleCommand makes the working folder a Go module that uses this repository, as "go mod init" and "go get" would make it use a release.
func moduleCommand(ts *testscript.TestScript, _ bool, _ []string) {
	s := stageOf(ts)
	mod := ts.ReadFile(filepath.Join(s.repository, "go.mod"))
	mod = strings.Replace(mod, "module github.com/tokenbroker/tokenbroker\n", "module example.org/reports\n", 1)
	mod += "require github.com/tokenbroker/tokenbroker v0.0.0\nreplace github.com/tokenbroker/tokenbroker => " + s.repository + "\n"
	ts.Check(os.WriteFile(ts.MkAbs("go.mod"), []byte(mod), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("go.sum"), []byte(ts.ReadFile(filepath.Join(s.repository, "go.sum"))), 0o600))
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
		out, err := exec.Command("go", "env", name).Output()
		ts.Check(err)
		ts.Setenv(name, strings.TrimSpace(string(out)))
	}
	ts.Setenv("GOFLAGS", "-mod=mod")
	ts.Setenv("GOPROXY", "off")
}

// nodeModulesCommand gives the working folder the packages of the TypeScript example.
func nodeModulesCommand(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(os.Symlink(filepath.Join(stageOf(ts).repository, "examples/typescript/node_modules"), ts.MkAbs("node_modules")))
	if _, err := os.Stat(ts.MkAbs("node_modules/google-auth-library")); err != nil {
		ts.Fatalf("google-auth-library is not there: make deps")
	}
}

// backgroundCommand is "background NAME LINE": a command line of sh runs until the script ends, or "end".
func backgroundCommand(ts *testscript.TestScript, _ bool, args []string) {
	background(ts, args[0], args[1])
}
