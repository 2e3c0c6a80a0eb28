package store_test

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker/keyring"
)

const (
	imagesVariable = "TOKENBROKER_CRASH_IMAGES" // how many images to build; 160 if unset
	folderVariable = "TOKENBROKER_RESUME_IMAGES"
	imageTimeout   = 20 * time.Second
)

func imageCount(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(imagesVariable), "160"))
	if err != nil {
		t.Fatalf("%s: %v", imagesVariable, err)
	}
	return n
}

// accounts is what the whole files say, to compare crash images with: of step i as it was before at i, after at i+1.
func accounts(t *testing.T, p *place, steps []step) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "whole.db")
	all := make([]string, 0, len(steps)+1)
	for _, im := range append([]image{steps[0].old}, newImages(steps)...) {
		im.write(t, path)
		got, _, _, err := resume(t.Context(), path, p.kek)
		if err != nil {
			t.Fatalf("whole file %d: %v", len(all), err)
		}
		all = append(all, got)
	}
	return all
}

func newImages(steps []step) []image {
	var all []image
	for _, s := range steps {
		all = append(all, s.new)
	}
	return all
}

// TestCrashImages builds files as a disk may hold them after a power cut, and starts on each as the product does. What an honest
// disk leaves is the state before a transaction or after it. What a disk leaves that lies about its syncs can't be promised
// whole, but nobody may take it for whole.
func TestCrashImages(t *testing.T) {
	n := imageCount(t)
	p := newPlace(t)
	steps := record(t, p)
	states := accounts(t, p, steps)
	t.Run("a power cut leaves the state before or after a transaction", func(t *testing.T) {
		cutPower(t, p, steps, states, n*3/4)
	})
	t.Run("a page that the disk lost is noticed or harmless", func(t *testing.T) {
		losePages(t, p, steps, states, n/4)
	})
}

func cutPower(t *testing.T, p *place, steps []step, states []string, n int) {
	t.Helper()
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "store.db")
	var olds, news int
	for i := range n {
		at := i % len(steps)
		c, torn := steps[at].subset(r), false
		if r.IntN(3) == 0 {
			c, torn = steps[at].torn(16+r.IntN(497)), true
		}
		c.write(t, path)
		got, newest, next, err := resume(t.Context(), path, p.kek)
		switch {
		case err != nil:
			t.Fatalf("seed %d, image %d, %s: %v", seed, i, c.how, err)
		case got == states[at]:
			olds++
		case got == states[at+1] && torn:
			news++
		default:
			t.Fatalf("seed %d, image %d, %s: it is neither as before nor as after", seed, i, c.how)
		}
		if next <= newest {
			t.Fatalf("seed %d, image %d, %s: generation %d was given out after %d", seed, i, c.how, next, newest)
		}
	}
	t.Logf("seed %d: %d images of %d transactions: %d as before, %d as after", seed, n, len(steps), olds, news)
	if olds == 0 || news == 0 {
		t.Errorf("got %d images as before and %d as after, want some of each", olds, news)
	}
}

func losePages(t *testing.T, p *place, steps []step, states []string, n int) {
	t.Helper()
	const seed = 2
	dir := t.TempDir()
	var all []crash
	var at []int // of each image, the step it is of
	for i, s := range steps {
		for _, c := range s.lies() {
			all, at = append(all, c), append(at, i)
		}
	}
	pick := rand.New(rand.NewPCG(seed, 0)).Perm(len(all))
	pick = pick[:min(n, len(pick))]
	for _, i := range pick {
		all[i].write(t, filepath.Join(dir, fmt.Sprintf("%06d.db", i)))
	}
	counts := map[string]int{}
	for name, got := range resumeElsewhere(t, p, dir) {
		i, err := strconv.Atoi(strings.TrimSuffix(name, ".db"))
		if err != nil {
			t.Fatal(err)
		}
		kind, digest, _ := strings.Cut(got, " ")
		if kind == "opened" && slices.Contains(states[at[i]:at[i]+2], digest) {
			kind = "harmless"
		}
		counts[kind]++
		if kind != "harmless" && kind != "noticed" && kind != "circle" { // see package bolt about the last
			t.Errorf("seed %d, %s: %.2000s", seed, all[i].how, got)
		}
	}
	t.Logf("seed %d: %d of %d images: %v", seed, len(pick), len(all), counts)
	if counts["noticed"] == 0 {
		t.Error("no image was noticed, so the test does not test")
	}
}

// resumeElsewhere opens each image of a folder in another process, for bbolt could end the process or never come back. It
// says of each "opened" with its digest, "noticed" with the error, "crashed", "hung", or
// "circle" where bbolt went round in one.
func resumeElsewhere(t *testing.T, p *place, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for {
		left, err := filepath.Glob(filepath.Join(dir, "*.db"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return got
		}
		slices.Sort(left)
		last, why := watchResume(t, p, dir, got)
		if why != "" { // the image after the last one that was answered ended it
			next := 0
			if i := slices.Index(left, last); i >= 0 {
				next = i + 1
			}
			got[filepath.Base(left[next])] = why
			left = left[:next+1]
		}
		for _, path := range left {
			os.Remove(path)
		}
	}
}

// watchResume runs one process over the folder and returns the last image that it answered for; why says how it ended before its time.
func watchResume(t *testing.T, p *place, dir string, got map[string]string) (last, why string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // says where it hangs
	cmd.WaitDelay = time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), folderVariable+"="+dir, folderVariable+"_KEK="+p.kekPath, "GOTRACEBACK=all")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dog := time.AfterFunc(imageTimeout, cancel)
	for lines := bufio.NewScanner(out); lines.Scan(); dog.Reset(imageTimeout) {
		name, verdict, ok := strings.Cut(lines.Text(), "\t")
		if !ok {
			continue
		}
		got[name], last = verdict, filepath.Join(dir, name)
	}
	err = cmd.Wait()
	switch hung := !dog.Stop(); {
	case hung:
		why = "hung " + stderr.String()
	case err != nil && strings.Contains(stderr.String(), "bbolt.(*Cursor)"):
		why = "circle " + stderr.String()
	case err != nil:
		why = "crashed " + stderr.String()
	}
	return last, why
}

// resumeImagesIfAsked makes this binary the other process.
func resumeImagesIfAsked() {
	dir := os.Getenv(folderVariable)
	if dir == "" {
		return
	}
	kek, err := keyring.FileKEK(os.Getenv(folderVariable + "_KEK"))
	if err != nil {
		panic(err)
	}
	debug.SetMaxStack(16 << 20)
	go watchMemory(512 << 20)
	images, _ := filepath.Glob(filepath.Join(dir, "*.db"))
	for _, path := range images {
		digest, _, _, err := resume(context.Background(), path, kek)
		verdict := "opened " + digest
		if err != nil {
			verdict = fmt.Sprintf("noticed %.200q", err)
		}
		_, _ = fmt.Fprintf(os.Stdout, "%s\t%s\n", filepath.Base(path), verdict)
	}
	os.Exit(0)
}

// watchMemory ends this process before an endless loop takes all memory there is.
func watchMemory(most uint64) {
	for range time.NewTicker(20 * time.Millisecond).C {
		var m runtime.MemStats
		if runtime.ReadMemStats(&m); m.HeapAlloc > most {
			panic("it takes more and more memory")
		}
	}
}
