// Package browsertest drives Chromium in tests, by way of the script in web/testdata/browser, where the commands are explained.
//
//	b := browsertest.Start(t, browsertest.Config{Dir: "testdata/browser", Trust: [][]byte{serverPEM}})
//	owner := b.Browser(browsertest.Phone)
//	owner.Open(link)
//	owner.Click("button", "Continue to Acme")
//
// Whatever goes wrong fails the test, also that Chromium or the script's modules are missing. It is for tests only: it trusts what it is
// told to trust, and runs Chromium without its sandbox.
package browsertest

import (
	"bufio"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// Config says how to drive.
type Config struct {
	// Dir is the folder of the script, from the folder of the test. Required.
	Dir string
	// Trust are PEM certificates of servers. Chromium takes a chain that holds the key of one, and complains of any other.
	Trust [][]byte
}

// Driver is a Chromium process.
type Driver struct {
	t   *testing.T
	mu  sync.Mutex // one command at a time
	in  io.WriteCloser
	out *bufio.Reader
	n   int
}

// Size is what a browser looks like.
type Size struct {
	Width, Height int
	NoScripts     bool // JavaScript is off
	Dark          bool // the person prefers dark pages
}

// Sizes to look at pages in.
func Phone() Size { return Size{Width: 390, Height: 844} }

// Desktop is a window on a large screen.
func Desktop() Size { return Size{Width: 1280, Height: 900} }

// Browser is one browser with one page, and cookies of its own.
type Browser struct {
	d    *Driver
	name string
}

// Standing is how a page stands.
type Standing struct {
	URL        string    `json:"url"`
	Title      string    `json:"title"`
	Status     int       `json:"status"` // of the page's own request
	Text       string    `json:"text"`
	Focus      string    `json:"focus"`    // text of what has the focus
	Wide       bool      `json:"wide"`     // it scrolls sideways
	Smallest   float64   `json:"smallest"` // font size on it, in px
	History    []string  `json:"history"`  // URLs
	Asked      []Request `json:"asked"`
	Complaints []string  `json:"complaints"` // errors on the console
}

// Request is a request that a page made.
type Request struct {
	Method  string `json:"method"`
	URL     string `json:"url"`
	Referer string `json:"referer"`
}

// Start runs Chromium until the test ends.
func Start(t *testing.T, cfg Config) *Driver {
	t.Helper()
	if _, err := os.Stat(filepath.Join(cfg.Dir, "node_modules")); err != nil {
		t.Fatalf("browsertest: the modules of %s are missing: make deps", cfg.Dir)
	}
	executable := find(t)
	cmd := exec.Command("node", "drive.mjs")
	cmd.Dir, cmd.Stderr = cfg.Dir, t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("browsertest: start node (20 or newer): %v", err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	d := &Driver{t: t, in: in, out: bufio.NewReader(out)}
	d.do(map[string]any{"do": "launch", "executable": executable, "trust": keys(t, cfg.Trust)})
	return d
}

// find finds Chromium.
func find(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("browsertest: no chromium in PATH: make deps installs it where apt-get is there and allowed (Debian: apt-get install chromium)")
	return ""
}

// keys are the hashes of the certificates' public keys, as Chromium wants them.
func keys(t *testing.T, certificates [][]byte) []string {
	t.Helper()
	list := []string{}
	for _, text := range certificates {
		block, _ := pem.Decode(text)
		if block == nil {
			t.Fatal("browsertest: Trust holds something that is no PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		list = append(list, base64.StdEncoding.EncodeToString(sum[:]))
	}
	return list
}

// do sends one command and reads its answer.
func (d *Driver) do(command map[string]any) Standing {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := json.NewEncoder(d.in).Encode(command); err != nil {
		d.t.Fatalf("browsertest: %s: %v", command["do"], err)
	}
	line, err := d.out.ReadBytes('\n')
	if err != nil {
		d.t.Fatalf("browsertest: %s: the browser ended: %v", command["do"], err)
	}
	var answer struct {
		Standing
		Error string `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		d.t.Fatalf("browsertest: %s: %v", command["do"], err)
	}
	if answer.Error != "" {
		d.t.Fatalf("browsertest: %s: %s", command["do"], answer.Error)
	}
	return answer.Standing
}

// Browser makes a browser with cookies of its own.
func (d *Driver) Browser(s Size) *Browser {
	d.t.Helper()
	d.n++
	b := &Browser{d: d, name: strconv.Itoa(d.n)}
	d.do(map[string]any{"do": "context", "page": b.name, "width": s.Width, "height": s.Height, "scripts": !s.NoScripts, "dark": s.Dark})
	return b
}

// Open goes to a URL.
func (b *Browser) Open(url string) Standing {
	b.d.t.Helper()
	return b.d.do(map[string]any{"do": "open", "page": b.name, "url": url})
}

// Click clicks what has a role and a name, and waits for the page that this leads to.
func (b *Browser) Click(role, name string) Standing {
	b.d.t.Helper()
	return b.d.do(map[string]any{"do": "click", "page": b.name, "role": role, "name": name})
}

// Select chooses in the list with a label.
func (b *Browser) Select(label, value string) Standing {
	b.d.t.Helper()
	return b.d.do(map[string]any{"do": "select", "page": b.name, "label": label, "value": value})
}

// Press presses a key.
func (b *Browser) Press(key string) Standing {
	b.d.t.Helper()
	return b.d.do(map[string]any{"do": "press", "page": b.name, "key": key})
}

// Type types text into what has the focus.
func (b *Browser) Type(text string) Standing {
	b.d.t.Helper()
	return b.d.do(map[string]any{"do": "type", "page": b.name, "text": text})
}

// Look says how the page stands.
func (b *Browser) Look() Standing {
	b.d.t.Helper()
	return b.d.do(map[string]any{"do": "look", "page": b.name})
}

// Shot takes a picture of the whole page, as PNG.
func (b *Browser) Shot(file string) {
	b.d.t.Helper()
	b.d.do(map[string]any{"do": "shot", "page": b.name, "file": file})
}
