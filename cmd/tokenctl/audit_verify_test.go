package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/audit"
)

// writeTrail writes a trail of n records, with its key and its second place, into a folder.
func writeTrail(t *testing.T, dir string, n int) {
	t.Helper()
	signer, err := audit.OpenSigner(filepath.Join(dir, "audit.key"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := audit.OpenFile(filepath.Join(dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var points bytes.Buffer
	l := audit.New(f, audit.Options{Tail: f.Tail(), Checkpoints: audit.Checkpoints{Signer: signer, Records: 5, Out: func(line []byte) { points.Write(line) }}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	for i := range n {
		if i == n/2 { // as logrotate does
			if err := os.Rename(filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "audit.jsonl.1")); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Write(t.Context(), audit.Record{Kind: audit.KindCall, Reason: fmt.Sprint(i), Decision: audit.Deny}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "points.jsonl"), points.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// runs runs a command line without a broker.
func runs(t *testing.T, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	c := &cli{in: strings.NewReader(""), out: &o, errs: &e}
	return c.run(t.Context(), args), o.String(), e.String()
}

func TestAuditVerifyConfirmsATrailOfTwoFiles(t *testing.T) {
	dir := t.TempDir()
	writeTrail(t, dir, 20)
	now, old, key, points := dir+"/audit.jsonl", dir+"/audit.jsonl.1", dir+"/audit.pub", dir+"/points.jsonl"
	status, out, errs := runs(t, "audit", "verify", now, old, "--key", key, "--checkpoints", points)
	if status != 0 || errs != "" || !strings.Contains(out, " 1 to 24") || !strings.Contains(out, "4 good ones in the trail; 4 in the second place that it agrees with") {
		t.Errorf("got status %d\n%s%s", status, out, errs)
	}
	status, out, _ = runs(t, "audit", "verify", old, now)
	if status != 0 || !strings.Contains(out, "the chain alone") {
		t.Errorf("without a key: got status %d\n%s", status, out)
	}
	status, out, _ = runs(t, "audit", "verify", "-o", "json", old, now, "--key", key)
	var report struct {
		OK       bool
		SignedTo string
		Problems []any
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || status != 0 || !report.OK || report.SignedTo != "24" || len(report.Problems) != 0 {
		t.Errorf("json: got status %d, %v\n%s", status, err, out)
	}
}

func TestAuditVerifyNamesTheFirstBadLine(t *testing.T) {
	dir := t.TempDir()
	writeTrail(t, dir, 20)
	path := dir + "/audit.jsonl"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte(`"deny"`), []byte(`"allow"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs := runs(t, "audit", "verify", path, dir+"/audit.jsonl.1")
	if status != exitOther || !strings.Contains(out, "Problem: edited") || !strings.Contains(errs, "the audit trail is not as the broker wrote it") || !strings.Contains(errs, `"edited"`) {
		t.Errorf("got status %d\n%s%s", status, out, errs)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if err := os.WriteFile(path, bytes.Join(lines[:5], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errs = runs(t, "audit", "verify", path, dir+"/audit.jsonl.1", "--key", dir+"/audit.pub", "--checkpoints", dir+"/points.jsonl")
	if status != exitOther || !strings.Contains(errs, `"truncated"`) {
		t.Errorf("got status %d\n%s", status, errs)
	}
	status, out, _ = runs(t, "audit", "verify", path, dir+"/audit.jsonl.1", "--key", dir+"/audit.pub")
	if status != exitOK || !strings.Contains(out, "nothing speaks yet for the") {
		t.Errorf("without the second place: got status %d\n%s", status, out)
	}
}

func TestAuditVerifySaysNoMoreThanItKnows(t *testing.T) {
	dir := t.TempDir()
	writeTrail(t, dir, 20)
	data, err := os.ReadFile(dir + "/audit.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	one, wild := dir+"/one", dir+"/wild"
	if err := errors.Join(os.WriteFile(one, lines[0], 0o600), os.WriteFile(wild, append(slices.Clone(lines[0]), strings.Repeat("x\n", 102)...), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, out, errs := runs(t, "audit", "verify", one, "--key", dir+"/audit.pub")
	if strings.Contains(out+errs, "record 0") || strings.Contains(out+errs, "line 0") || !strings.Contains(errs, "1 problem,") {
		t.Errorf("got for a single line\n%s%s", out, errs)
	}
	_, out, errs = runs(t, "audit", "verify", wild)
	if !strings.Contains(out, "Not listed") || !strings.Contains(errs, "102 problems") {
		t.Errorf("got for many problems\n%s%s", out, errs)
	}
	empty := dir + "/empty"
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errs := runs(t, "audit", "verify", empty, "--key", dir+"/audit.pub", "--checkpoints", dir+"/points.jsonl")
	if status == exitOK {
		t.Errorf("a trail that was emptied is confirmed: %s", errs)
	}
}

func TestAuditVerifyRefuses(t *testing.T) {
	dir := t.TempDir()
	writeTrail(t, dir, 2)
	path := dir + "/audit.jsonl"
	file := func(name, text string) string {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"an empty file":             {[]string{file("empty", "")}, "no line of what was given is a record"},
		"a file that is no trail":   {[]string{file("policy.yaml", "version: 1\nrules: []\n")}, "no line of what was given is a record"},
		"half a line":               {[]string{file("half", `{"v":2,"trail":"t","se`)}, "no line of what was given is a record"},
		"no file":                   {nil, "FILE is missing"},
		"a file that is not there":  {[]string{path, dir + "/no"}, "tokenctl: " + dir + "/no can't be read: no such file"},
		"a file that is not packed": {[]string{file("trail.gz", "{}")}, "read " + dir + "/trail.gz: "},
		"a key that is not there":   {[]string{path, "--key", dir + "/no"}, "--key can't be read"},
		"a key that is none":        {[]string{path, "--key", path}, "not a public key"},
		"checkpoints without a key": {[]string{path, "--checkpoints", dir + "/points.jsonl"}, "--checkpoints needs --key"},
		"checkpoints not there":     {[]string{path, "--key", dir + "/audit.pub", "--checkpoints", dir + "/no"}, dir + "/no can't be read: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			status, _, errs := runs(t, append([]string{"audit", "verify"}, tt.args...)...)
			if status != exitUsage || !strings.Contains(errs, tt.want) {
				t.Errorf("got status %d and %q, want %d and %q", status, errs, exitUsage, tt.want)
			}
		})
	}
}

func TestAuditVerifyMissesWhatTheSecondPlaceKnows(t *testing.T) {
	dir := t.TempDir()
	writeTrail(t, dir, 20)
	args := []string{"audit", "verify", dir + "/audit.jsonl", "--key", dir + "/audit.pub", "--checkpoints", dir + "/points.jsonl"}
	status, out, errs := runs(t, args...) // audit.jsonl.1 is not given
	if status != exitOther || !strings.Contains(out, "numbers 1 to 12 are not there") || !strings.Contains(errs, `"missing"`) {
		t.Errorf("got status %d\n%s%s", status, out, errs)
	}
	status, out, errs = runs(t, append(args, "--from", "13")...)
	if status != exitOK || !strings.Contains(out, "2 checkpoints of the second place speak of records in front of the first") {
		t.Errorf("from 13: got status %d\n%s%s", status, out, errs)
	}
	for _, name := range []string{"/audit.jsonl", "/audit.jsonl.1"} {
		if err := os.Remove(dir + name); err != nil {
			t.Fatal(err)
		}
	}
	points, err := os.ReadFile(dir + "/points.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	writeTrail(t, dir, 20) // as a broker does that finds no file
	now, err := os.ReadFile(dir + "/points.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/points.jsonl", append(points, now...), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append(args, dir+"/audit.jsonl.1")
	status, out, errs = runs(t, args...)
	if status != exitOther || !strings.Contains(out, "of which no record is there") || !strings.Contains(errs, `"missing" in `+dir+"/points.jsonl, line 1") {
		t.Errorf("a new trail: got status %d\n%s%s", status, out, errs)
	}
	status, out, errs = runs(t, append(args, "--other-trails")...)
	if status != exitOK || !strings.Contains(out, "4 checkpoints of the second place") {
		t.Errorf("a new trail that is allowed: got status %d\n%s%s", status, out, errs)
	}
}
