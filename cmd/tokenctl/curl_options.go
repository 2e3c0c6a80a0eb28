package main

import "strings"

// curlFlags are the options of curl that take no value and that tokenctl curl lets pass.
const curlFlags = `ca-native cert-status clobber compressed create-dirs fail fail-early fail-with-body get globoff head http1.0 http1.1
http2 http2-prior-knowledge http3 ignore-content-length include ipv4 ipv6 junk-session-cookies keepalive location no-buffer buffer path-as-is post301
post302 post303 progress-bar progress-meter raw remote-header-name remote-name remote-name-all remote-time remove-on-error retry-all-errors
retry-connrefused sessionid show-error silent styled-output suppress-connect-headers tcp-fastopen tcp-nodelay tlsv1 tlsv1.0 tlsv1.1 tlsv1.2 tlsv1.3
tr-encoding xattr alpn`

// curlValues are those that take one.
const curlValues = `cacert capath cert cert-type ciphers connect-timeout connect-to continue-at cookie cookie-jar crlfile curves data data-ascii
data-binary data-raw data-urlencode dns-servers dump-header etag-compare etag-save expect100-timeout form form-string happy-eyeballs-timeout-ms
header interface json keepalive-time key key-type limit-rate local-port max-filesize max-redirs max-time noproxy output output-dir pinnedpubkey
preproxy proxy proxy-cacert proxy-header range rate referer request resolve retry retry-delay retry-max-time socks5 socks5-hostname speed-limit
speed-time stderr time-cond tls-max tls13-ciphers upload-file url url-query user-agent write-out`

// curlShort spells out the options of one letter.
var curlShort = map[byte]string{
	'#': "progress-bar", '0': "http1.0", '1': "tlsv1", '4': "ipv4", '6': "ipv6", 'A': "user-agent", 'b': "cookie", 'C': "continue-at", 'c': "cookie-jar",
	'D': "dump-header", 'd': "data", 'E': "cert", 'e': "referer", 'F': "form", 'f': "fail", 'G': "get", 'g': "globoff", 'H': "header", 'I': "head",
	'i': "include", 'J': "remote-header-name", 'j': "junk-session-cookies", 'L': "location", 'm': "max-time", 'N': "no-buffer", 'O': "remote-name",
	'o': "output", 'R': "remote-time", 'r': "range", 'S': "show-error", 's': "silent", 'T': "upload-file", 'w': "write-out", 'X': "request",
	'x': "proxy", 'Y': "speed-limit", 'y': "speed-time", 'z': "time-cond",
	// those that are refused, so that the reason can be given
	'K': "config", 'k': "insecure", 'n': "netrc", 'u': "user", 'v': "verbose", ':': "next",
}

// curlRefused are options of curl that would give the token away, or let something else do it, and why.
var curlRefused = map[string]string{
	"config":           "what it holds can't be looked at beforehand: give the options themselves",
	"insecure":         "the token would go to whoever answers: name the server's CA with --cacert",
	"libcurl":          "it would write the token into a file",
	"location-trusted": "it would send the token to wherever a redirect leads",
	"netrc":            "the token is what authenticates",
	"next":             "run tokenctl curl once for each",
	"oauth2-bearer":    "the token is what authenticates",
	"trace":            "it would print the token; -D or -i show the answer's head",
	"trace-ascii":      "it would print the token; -D or -i show the answer's head",
	"user":             "the token is what authenticates",
	"verbose":          "it would print the token; -D or -i show the answer's head",
}

// curlOption tells whether an option of curl is let through, and whether it takes a value. A list of what is good: of an option that
// curl gets next year nobody knows what it does to a token.
func curlOption(name string) (value, known bool) {
	if listed(curlValues, name) {
		return true, true
	}
	positive, _ := strings.CutPrefix(name, "no-")
	return false, listed(curlFlags, name) || listed(curlFlags, positive)
}

func listed(names, name string) bool {
	for n := range strings.FieldsSeq(names) {
		if n == name {
			return true
		}
	}
	return false
}
