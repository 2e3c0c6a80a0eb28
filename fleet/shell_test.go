package fleet_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// job is a shell job.
type job struct {
	s          *site
	name, kind string
	credential string
	remembers  bool // it speaks to an agent, which keeps tokens, or has a process of its own that does
	env        []string
	proc       *process
	keeper     *process // of the file with the token; nil = none
}

// startJobs starts the jobs, each by a way that tokenctl has.
func startJobs(s *site) []*job {
	broker, agent := s.environ(s.files("worker/shell")), append(s.bare(), "TOKENBROKER_ADDR=unix://"+s.socket())
	jobs := []*job{
		{kind: "get", env: broker},
		{kind: "header", env: agent, remembers: true},
		{kind: "curls", env: broker},
		{kind: "curls", env: agent, remembers: true},
		{kind: "environment", env: broker},
		{kind: "file", env: broker, remembers: true},
		{kind: "sink", env: agent, remembers: true},
		{kind: "helper", env: agent, remembers: true},
		{kind: "socket", env: agent, remembers: true},
		{kind: "plugin", env: broker},
	}
	names := credentialNames()
	for i, j := range jobs {
		j.s, j.name, j.credential = s, fmt.Sprintf("shell-%s-%d", j.kind, i), names[i%len(names)]
		j.start()
	}
	return jobs
}

func (j *job) start() {
	env := append(slices.Clip(j.env), "FLEET_JOB="+j.name, "FLEET_KIND="+j.kind, "FLEET_CREDENTIAL="+j.credential, "FLEET_URL="+j.s.api.url+"/reports",
		"FLEET_CA="+j.s.path("api.pem"), "FLEET_STOP="+j.s.path("stop"), "FLEET_SOCKET="+j.s.socket(), "FLEET_HISTORIES="+j.s.path("histories"),
		"FLEET_SINK="+j.s.path("sinks", j.name), fmt.Sprintf("FLEET_WAIT=%d", int(j.s.plan.wait.Seconds())))
	loop, err := filepath.Abs("testdata/loop.bash")
	must(j.s.t, err)
	argv := []string{"bash", loop}
	switch j.kind {
	case "file":
		argv = append([]string{"tokenctl", "exec", "--file", "TOKEN_FILE=" + j.credential, "--"}, argv...)
	case "sink":
		keeper := exec.Command(filepath.Join(bin, "tokenctl"), "file", "--format", "header", "--remove", j.s.path("sinks", j.name)+"="+j.credential)
		keeper.Env = env
		j.keeper = j.s.run(j.name+"-keeper", keeper)
		eventually(j.s.t, "the file of the token", func() bool { _, err := os.Stat(j.s.path("sinks", j.name)); return err == nil })
	}
	path := argv[0]
	if path == "tokenctl" {
		path = filepath.Join(bin, path)
	}
	cmd := exec.Command(path, argv[1:]...)
	cmd.Env = env
	j.proc = j.s.run(j.name, cmd)
}

// outcomes are those of the requests that a job has told of.
func (j *job) outcomes() (all []outcome) {
	b, err := os.ReadFile(j.proc.log)
	must(j.s.t, err)
	// The longest try is git, a shell, tokenctl and sed, and then curl: three beats. The one that was under way when the token came does not count.
	const beats = 6
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 5 || f[0] != "request" {
			continue
		}
		code, _ := strconv.Atoi(f[4])
		o := outcome{id: f[1], credential: j.credential, remembers: j.remembers, beats: beats, from: stamp(f[2]), to: stamp(f[3])}
		if code != 200 {
			o.err = refusal{code}
		}
		all = append(all, o)
	}
	return all
}

// stamp reads the time of a shell: seconds and their fraction.
func stamp(s string) time.Time {
	micros, _ := strconv.ParseInt(strings.NewReplacer(".", "", ",", "").Replace(s), 10, 64)
	return time.UnixMicro(micros)
}
