package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTheTokenIsInNoProcess looks at the command line and the environment of each process of this machine that it may see, while curl waits for an
// answer.
func TestTheTokenIsInNoProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.AddClientCredentials("example/api", "files.read")
	a := startAPI(t, w)
	cmd := exec.Command("tokenctl", "curl", "example/api", "--", "-fsS", a.tls.URL+"/hold")
	cmd.Env = append(w.environ(), "CURL_CA_BUNDLE="+filepath.Join(w.dir, "api-ca.pem"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	token := <-a.held
	seen := processes(t, token, strconv.Itoa(cmd.Process.Pid))
	close(a.release)
	if err := cmd.Wait(); err != nil || out.String() != "held\n" {
		t.Errorf("got %v and %q", err, out.String())
	}
	if !slices.Contains(seen, "curl") || !slices.Contains(seen, "tokenctl") {
		t.Errorf("got %v, want curl among the processes that were looked at", seen)
	}
}

// processes looks for a token in all processes, and returns the names of those whose parent is this one, or a child of it.
func processes(t *testing.T, token, parent string) []string {
	t.Helper()
	var seen []string
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	for _, dir := range folders {
		for _, name := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil && strings.Contains(string(data), token) {
				t.Errorf("%s of %s holds the token", name, readIfThere(filepath.Join(dir, "comm")))
			}
		}
		stat := readIfThere(filepath.Join(dir, "stat")) // pid (comm) state ppid …
		fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
		if len(fields) > 1 && (fields[1] == parent || filepath.Base(dir) == parent) {
			seen = append(seen, strings.TrimSpace(readIfThere(filepath.Join(dir, "comm"))))
		}
	}
	return seen
}

func TestArgumentsOfCurl(t *testing.T) { // not in parallel: it changes the folder
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir()) // with files of the names that mean standard input
	if err := os.WriteFile("-", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const u = "https://api.example/a"
	for args, want := range map[string]string{ // "" = let through and run again, "once…" = let through
		u:                                         "",
		"--url " + u:                              "",
		"-sSfo out " + u:                          "",
		"-so- -XPOST " + u:                        "",
		"-- " + u:                                 "",
		"-m5 --retry 3 --no-progress-meter " + u:  "",
		"-HX-A:b -H X-B;c --header X-C: " + u:     "",
		"https://[::1]:8443/x?a=b#c":              "",
		"HTTPS://Api.Example " + u:                "once: of several",
		"-g https://api.example/{a}":              "",
		"--data-raw @x " + u:                      "",
		"--data-urlencode a=@x " + u:              "",
		"-d @" + file + " " + u:                   "",
		"-T " + file + " " + u:                    "",
		"-F a=@" + file + ";type=text/plain " + u: "",
		"-F a=b " + u:                             "",

		"https://api.example/{a,b}":         "once: of several URLs",
		u + " " + u + "b":                   "once: of several URLs",
		"-d @- " + u:                        "once: what was sent",
		"-d@- " + u:                         "once: what was sent",
		"--json @- " + u:                    "once: what was sent",
		"--data-binary @/dev/stdin " + u:    "once: what was sent",
		"--data-urlencode a@- " + u:         "once: what was sent",
		"-F a=<- " + u:                      "once: what was sent",
		"-T - " + u:                         "once: what was sent",
		"-T . " + u:                         "once: what was sent",
		"-w @- " + u:                        "once: a value came",
		"--url-query a@- " + u:              "once: what was sent",
		"-F a=@/etc/passwd;headers=@- " + u: "once: what was sent",
		"-b - " + u:                         "once: a value came",
		"-C - " + u:                         "once: curl would go on",
		"-OJ " + u:                          "once: curl would not",
		"-o x --no-clobber " + u:            "once: curl would not",
		"-D heads " + u:                     "once: with -D",

		"":                                   "the URL is missing",
		"-":                                  "- is no URL",
		"api.example/a":                      "has to begin with https://",
		"file:///etc/passwd":                 "has to begin with https://",
		"https://u:p@api.example/":           "has to begin with https://",
		"https://{a,b}.example/":             "has to begin with https://",
		`https://a.example\@b.example/`:      "has to begin with https://",
		"https://é.example/":                 "has to begin with https://",
		u + " https://b.example/":            "several servers",
		u + " https://api.example:444/":      "several servers",
		u + " http://api.example:443/":       "several servers",
		u + "?x=1&Access_Token=hush":         "access_token",
		"--url-query access_token=hush " + u: "does not belong into a URL",
		"-G -d access_token=hush " + u:       "with -G",
		"-H Authorization:x " + u:            "the token is what authenticates",
		"-Hauthorization:x " + u:             "the token is what authenticates",
		"-H AUTHORIZATION; " + u:             "the token is what authenticates",
		"-sH @file " + u:                     "give the headers themselves",
		"--location-trusted " + u:            "wherever a redirect leads",
		"--location-tr " + u:                 "does not know",
		"-sk " + u:                           "whoever answers",
		"-ku a:b " + u:                       "whoever answers",
		"-u a:b " + u:                        "the token is what authenticates",
		"-n " + u:                            "the token is what authenticates",
		"-K x " + u:                          "looked at beforehand",
		"-v " + u:                            "print the token",
		"-sSvf " + u:                         "print the token",
		"--trace-ascii - " + u:               "print the token",
		"--libcurl x " + u:                   "into a file",
		"--next " + u:                        "once for each",
		"-: " + u:                            "once for each",
		"--data=x " + u:                      "does not know",
		"--expand-url x " + u:                "does not know",
		"--proto =http " + u:                 "does not know",
		"-q " + u:                            "does not know",
		u + " -o":                            "--output: the value is missing",
		"--url @urls":                        "give the URLs themselves",
	} {
		l, err := parseCurl(strings.Fields(args))
		switch {
		case err != nil && (want == "" || !strings.Contains(err.Error(), want)), err != nil && strings.Contains(err.Error(), "hush"):
			t.Errorf("%s: got error %v, want %q", args, err, want)
		case err == nil && want == "" && l.once != "":
			t.Errorf("%s: got once only (%s), want that it can run again", args, l.once)
		case err == nil && want != "" && !strings.HasPrefix("once: "+l.once, want):
			t.Errorf("%s: got let through (once: %q), want %q", args, l.once, want)
		}
	}
}

func TestAHeaderWithALineInItIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := parseCurl([]string{"-H", "X: a\nAuthorization: b", "https://api.example/"}); err == nil {
		t.Error("got no error for two headers in one")
	}
}

func TestPlainHTTPIsForThisHost(t *testing.T) {
	t.Parallel()
	for u, want := range map[string]bool{"http://127.0.0.1:1/": true, "http://127.9.9.9/": true, "http://[::1]/": true, "http://localhost/": false,
		"http://127.1/": false, "http://10.0.0.1/": false, "http://127.0.0.1.example/": false, "http://[::ffff:10.0.0.1]/": false} {
		l, err := parseCurl([]string{u})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.plain(true); (err == nil) != want {
			t.Errorf("%s: got %v, want allowed: %t", u, err, want)
		}
		if _, err := l.plain(false); err == nil {
			t.Errorf("%s: got no error without the flag", u)
		}
	}
}

func TestPlainHTTPGoesToTheHostOfItsURL(t *testing.T) {
	for _, option := range []string{"--proxy", "--connect-to", "--resolve"} {
		l, err := parseCurl([]string{option, "::192.0.2.2:80", "http://127.0.0.1:1/"})
		if err != nil {
			t.Fatalf("%s: %v", option, err)
		}
		if _, err := l.plain(true); err == nil {
			t.Errorf("%s: another host would get the token in the clear", option)
		}
	}
}

func TestHeadsOfAnswers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, text, code string
		refused          int
	}{
		{"one", "HTTP/2 401 \r\nwww-authenticate: Bearer realm=\"a\", error=\"invalid_token\", error_description=\"x\"\r\n\r\n", "invalid_token", 401},
		{"a proxy's before it", "HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 F\r\nWWW-Authenticate: Basic x, bearer error=insufficient_scope\r\n\r\n", "insufficient_scope", 403},
		{"basic alone", "HTTP/1.1 401 U\r\nWWW-Authenticate: Basic error=\"x\"\r\n\r\n", "", 401},
		{"a redirect on the server", "HTTP/1.1 302 F\r\nLocation: /b\r\n\r\nHTTP/1.1 401 U\r\n\r\n", "", 401},
		{"a redirect to another one", "HTTP/1.1 302 F\r\nLocation: https://b.example/b\r\n\r\nHTTP/1.1 401 U\r\n\r\n", "", 0},
		{"and back", "HTTP/1.1 302 F\r\nLocation: https://b.example/b\r\n\r\nHTTP/1.1 302 F\r\nLocation: https://A.example:443/c\r\n\r\nHTTP/1.1 401 U\r\n\r\n", "", 401},
		{"a redirect to nowhere", "HTTP/1.1 302 F\r\nLocation: https://%%\r\n\r\nHTTP/1.1 401 U\r\n\r\n", "", 0},
		{"nothing", "", "", 0},
	} {
		j := &curlJob{line: &curlLine{urls: []string{"https://a.example/a"}, follow: true}}
		h := j.heads()
		for _, b := range []byte(row.text) {
			h.take([]byte{b})
		}
		if h.refused() != row.refused || h.code() != row.code {
			t.Errorf("%s: got %d and %q, want %d and %q", row.name, h.refused(), h.code(), row.refused, row.code)
		}
	}
}

func FuzzCurlArguments(f *testing.F) {
	f.Add("-sS\x00https://a.example/")
	f.Add("-H\x00X: y\x00--\x00https://a.example/")
	f.Add("-d@-\x00https://a.example/")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseCurl(strings.Split(text, "\x00"))
		if err != nil {
			return
		}
		for _, u := range l.urls {
			if serverOf(u) == "" || serverOf(u) != serverOf(l.urls[0]) {
				t.Errorf("%q goes elsewhere", u)
			}
		}
		if slices.Contains(l.headers, "authorization") {
			t.Error("a header of the user's own authenticates")
		}
	})
}
