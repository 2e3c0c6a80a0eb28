package main

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
)

// curlLine is what curl is asked for, as far as it matters to a token.
type curlLine struct {
	urls    []string
	headers []string // names, in lower case
	data    []string // of the body, or with -G of the URL
	proxy   bool     // an option about proxies is there
	follow  bool     // -L
	dump    bool     // -D: the answer's head goes to a place of the user's own
	files   bool     // the answer goes into a file
	glob    bool     // curl makes several URLs of one with brackets
	get     bool     // -G
	once    string   // why it can't be run again; "" = it can
}

// parseCurl reads curl's arguments as curl does. An error names an argument by its position: its value may be a secret.
func parseCurl(args []string) (*curlLine, error) {
	l := &curlLine{glob: true}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		var used int
		var err error
		switch {
		case arg == "--":
			l.urls = append(l.urls, args[i+1:]...)
			return l, l.check()
		case strings.HasPrefix(arg, "--"):
			used, err = l.option(i, arg[2:], args[i+1:])
		case strings.HasPrefix(arg, "-"):
			used, err = l.letters(i, arg[1:], args[i+1:])
		default:
			l.urls = append(l.urls, arg)
		}
		if err != nil {
			return nil, err
		}
		i += used
	}
	return l, l.check()
}

// letters reads options of one letter. The value of one is the rest, or the next argument.
func (l *curlLine) letters(at int, letters string, next []string) (used int, err error) {
	if letters == "" {
		return 0, usagef("argument %d of curl: - is no URL", at+1)
	}
	for i := range len(letters) {
		name, known := curlShort[letters[i]]
		if !known {
			return 0, usagef("argument %d of curl: tokenctl curl does not know this option; pipe tokenctl header into curl -H @-", at+1)
		}
		if value, _ := curlOption(name); !value {
			if _, err := l.option(at, name, nil); err != nil {
				return 0, err
			}
			continue
		}
		if rest := letters[i+1:]; rest != "" {
			_, err := l.option(at, name, []string{rest})
			return 0, err
		}
		return l.option(at, name, next)
	}
	return 0, nil
}

// option reads an option by its whole name, and says how many of the arguments that follow it takes.
func (l *curlLine) option(at int, name string, next []string) (used int, err error) {
	if why, refused := curlRefused[name]; refused {
		return 0, usagef("argument %d of curl: --%s is not let through: %s", at+1, name, why)
	}
	value, known := curlOption(name)
	switch {
	case !known:
		return 0, usagef("argument %d of curl: tokenctl curl does not know this option; it takes long names in full; or pipe tokenctl header into curl -H @-", at+1)
	case !value:
		l.flag(name)
		return 0, nil
	case len(next) == 0:
		return 0, usagef("argument %d of curl: --%s: the value is missing", at+1, name)
	}
	if why := l.value(name, next[0]); why != "" {
		return 0, usagef("argument %d of curl: --%s: %s", at+1, name, why)
	}
	return 1, nil
}

func (l *curlLine) flag(name string) {
	switch name {
	case "location":
		l.follow = true
	case "globoff":
		l.glob = false
	case "get":
		l.get = true
	case "remote-name", "remote-name-all":
		l.files = true
	case "no-clobber", "remote-header-name":
		l.never("curl would not write the same file again")
	}
}

// value notes an option with its value; it returns why it is refused.
func (l *curlLine) value(name, value string) (refused string) {
	switch name {
	case "header":
		return l.header(value)
	case "url":
		if strings.HasPrefix(value, "@") {
			return "give the URLs themselves"
		}
		l.urls = append(l.urls, value)
	case "url-query":
		l.data = append(l.data, value)
		l.body("data-urlencode", value)
		if inQuery.MatchString(value) {
			return noTokenInURL
		}
	case "data", "data-ascii", "data-binary", "data-raw", "data-urlencode", "json", "form", "upload-file":
		l.data = append(l.data, value)
		l.body(name, value)
	case "continue-at":
		l.never("curl would go on after what the refused answer left")
	case "dump-header":
		l.dump = true
		l.never("with -D the status is not known here")
	case "output":
		l.files = true
	case "cookie", "write-out":
		if value == "-" || value == "@-" {
			l.never("a value came from standard input")
		}
	case "proxy", "preproxy", "socks5", "socks5-hostname", "noproxy", "connect-to", "resolve":
		l.proxy = true // something else than the URL may say who gets the token
	}
	return ""
}

func (l *curlLine) never(why string) {
	if l.once == "" {
		l.once = why
	}
}

// header looks at a header of the user's own.
func (l *curlLine) header(value string) (refused string) {
	if strings.HasPrefix(value, "@") {
		return "give the headers themselves: what a file holds can't be looked at beforehand"
	}
	if strings.ContainsAny(value, "\r\n") {
		return "one header each"
	}
	name := strings.ToLower(strings.TrimSpace(value[:max(0, strings.IndexAny(value+":", ":;"))]))
	l.headers = append(l.headers, name)
	if name == "authorization" {
		return "the token is what authenticates"
	}
	return ""
}

// body notes where a body comes from: it can be sent again if it is on the command line, or in a plain file.
func (l *curlLine) body(option, value string) {
	var file string
	switch option {
	case "data", "data-ascii", "data-binary", "json":
		file, _ = strings.CutPrefix(value, "@")
		if file == value {
			return
		}
	case "data-urlencode":
		at := strings.IndexAny(value, "=@")
		if at < 0 || value[at] == '=' {
			return
		}
		file = value[at+1:]
	case "form":
		_, part, _ := strings.Cut(value, "=")
		if part == "" || part[0] != '@' && part[0] != '<' {
			return
		}
		var more string
		if file, more, _ = strings.Cut(part[1:], ";"); strings.Contains(more, "@") {
			file = "-" // a file of headers: nobody but curl can tell
		}
	case "upload-file":
		file = value
	default:
		return
	}
	if info, err := os.Stat(file); file == "-" || err != nil || !info.Mode().IsRegular() {
		l.never("what was sent can't be read again") // "-", a pipe, or several files: nobody but curl can tell
	}
}

var (
	// curlURL is an address that curl and we read alike: no user, no brackets in the host, nothing that one of us could skip.
	curlURL = regexp.MustCompile(`^(?i:(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?)(?:[/?#]|$)`)
	inURL   = regexp.MustCompile(`(?i)[?&;]access_token=`)
	inQuery = regexp.MustCompile(`(?i)(^\+?|[?&;])access_token=`)
)

const noTokenInURL = "a token does not belong into a URL, which ends up in logs: it is sent in a header"

// check looks at the whole.
func (l *curlLine) check() error {
	if len(l.urls) == 0 {
		return usageError("the URL is missing", "tokenctl curl --help")
	}
	if len(l.urls) > 1 || l.glob && strings.ContainsAny(curlURL.ReplaceAllString(l.urls[0], ""), "{}[]") {
		l.never("of several URLs it is not known which was refused")
	}
	for _, u := range l.urls {
		switch {
		case !curlURL.MatchString(u):
			return usagef("a URL has to begin with https:// and a host, and have neither user nor brackets there")
		case inURL.MatchString(u):
			return usagef("a URL has access_token in it: %s", noTokenInURL)
		case serverOf(u) != serverOf(l.urls[0]):
			return usagef("the URLs are of several servers: run tokenctl curl once for each")
		}
	}
	for _, d := range l.data {
		if l.get && inQuery.MatchString(d) {
			return usagef("with -G, data has access_token in it: %s", noTokenInURL)
		}
	}
	return nil
}

// serverOf is the part of a URL that says which server it is of. The URL is one that curlURL takes.
func serverOf(u string) string {
	m := curlURL.FindStringSubmatch(u)
	if m == nil {
		return ""
	}
	scheme, host, port := strings.ToLower(m[1]), strings.ToLower(m[2]), m[3]
	if port == "" {
		port = map[string]string{"https": ":443", "http": ":80"}[scheme]
	}
	return scheme + "://" + host + port
}

// plain reports whether the URLs are http. That is for an address of this host, written as a number, if it is allowed at all.
func (l *curlLine) plain(allowed bool) (bool, error) {
	scheme, rest, _ := strings.Cut(serverOf(l.urls[0]), "://")
	if scheme == "https" {
		return false, nil
	}
	host := strings.Trim(rest[:strings.LastIndex(rest, ":")], "[]")
	ip, err := netip.ParseAddr(host)
	switch {
	case strings.EqualFold(strings.TrimSuffix(host, "."), "localhost"):
		return true, usagef("a URL names localhost with http: who answers to that name is up to a resolver; write 127.0.0.1, with --loopback-http")
	case err != nil || !ip.IsLoopback():
		return true, usagef("a URL is http: a token is not sent in the clear")
	case !allowed:
		return true, usagef("a URL is http: --loopback-http allows it for an address of this host")
	case l.proxy:
		return true, usagef("with http, no proxy, --connect-to or --resolve: another host would get the token")
	}
	return true, nil
}
