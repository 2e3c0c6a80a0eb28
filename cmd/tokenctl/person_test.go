package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// personCommand is what a person does who is asked to consent at the provider "people":
//
//	person consents FILE ACCOUNT SCOPE…   opens the URL in the file as soon as it is there, signs in, allows the scopes (none: all), and the
//	                                      browser follows to this machine, where there is a listener
//	person refuses FILE                   says no
//	person pastes FILE ACCOUNT            consents elsewhere, and writes the address that the browser ended at into the pipe "pasted"
//	person types FILE ACCOUNT             types in the code that is in the file
//
// The file is either that of a browser, with a URL alone, or what tokenctl printed.
func personCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: person VERB FILE …")
	}
	w, text := worldOf(ts), awaitText(ts, args[1])
	switch verb := args[0]; verb {
	case "consents":
		back, err := w.Sandbox.Authorize("people", text, args[2], args[3:]...)
		ts.Check(err)
		ts.Check(follow(back))
	case "refuses":
		back, err := w.Sandbox.RefuseAuthorization("people", text)
		ts.Check(err)
		ts.Check(follow(back))
	case "pastes":
		back, err := w.Sandbox.Authorize("people", text, args[2])
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs("pasted"), []byte(back+"\n"), 0o600))
		w.secrets = append(w.secrets, codeOf(back))
	case "types":
		ts.Check(w.Sandbox.Approve("people", text, args[2]))
	default:
		ts.Fatalf("person %s?", verb)
	}
}

// awaited is a URL on a line of its own, or a user code.
var awaited = regexp.MustCompile(`(?m)^ *(https://\S+)$|^and type in +(\S+)$`)

// awaitText waits for a file that another process writes, until it has a URL or a user code.
func awaitText(ts *testscript.TestScript, name string) string {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if m := awaited.FindStringSubmatch(readIfThere(ts.MkAbs(name))); m != nil {
			return m[1] + m[2]
		}
	}
	ts.Fatalf("%s does not come", name)
	return ""
}

// follow is the browser that is sent to a port of this machine.
func follow(url string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return fmt.Errorf("the redirect was not taken: %s", strings.ReplaceAll(err.Error(), url, "URL"))
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(resp.Request.URL.String(), donePath) || !strings.Contains(string(page), "close this window") {
		return fmt.Errorf("the browser ended with %s and a page of %d bytes: %w", resp.Status, len(page), err)
	}
	return nil
}

func codeOf(url string) string {
	_, rest, _ := strings.Cut(url, "code=")
	code, _, _ := strings.Cut(rest, "&")
	return code
}

// TestAPastedURLIsNotShown types the redirect URL on a terminal.
func TestAPastedURLIsNotShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.AddClient(t)
	k := w.sit(t, "connect", "example/drive", "--provider", "people", "--scope", "files.read", "--no-browser")
	k.await("redirect URL (not shown): ")
	_, rest, _ := strings.Cut(k.shown(), "https://sandbox.example/")
	url, _, _ := strings.Cut(rest, "\r\n")
	back, err := w.Sandbox.Authorize("people", "https://sandbox.example/"+url, "reports@corp.example")
	if err != nil {
		t.Fatal(err)
	}
	k.press(back + "\r")
	if got := k.end(); got != 0 {
		t.Fatalf("got exit status %d:\n%s", got, k.shown())
	}
	if strings.Contains(k.shown(), codeOf(back)) || !strings.Contains(k.shown(), "Connected example/drive") {
		t.Errorf("the terminal shows the code, or not that it went well:\n%s", k.shown())
	}
}

// TestCtrlCAtThePromptCancelsTheConsent leaves the prompt for the redirect URL.
func TestCtrlCAtThePromptCancelsTheConsent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.AddClient(t)
	k := w.sit(t, "connect", "example/drive", "--provider", "people", "--scope", "files.read", "--no-browser")
	k.await("redirect URL (not shown): ")
	k.press("\x03")
	if got := k.end(); got != exitInterrupted || !strings.Contains(k.shown(), "the consent is cancelled") {
		t.Errorf("got exit status %d:\n%s", got, k.shown())
	}
	list := w.tokenctl(t, "consent", "list", "--no-headers")
	if !strings.Contains(list, "CANCELLED") {
		t.Errorf("got %q, want that it is cancelled", list)
	}
}
