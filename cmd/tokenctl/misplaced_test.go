package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

func TestASecretInTheWrongPlaceIsNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.write("request", []byte("credential: a\nspec: {grantType: hush2}\n"))
	for line, says := range map[string]string{
		"client secret add acme hush2":                            "argument 2 is too many: it takes CLIENT\n",
		"client secret hush2":                                     `argument 1 is no command of "tokenctl client secret"`,
		"client secret retire acme id hush2":                      "argument 3 is too many: it takes CLIENT SECRET_ID\n",
		"client create acme hush2":                                "argument 2 is too many: it takes CLIENT\n",
		"client create acme --auth-method hush2":                  "--auth-method: give one of client_secret_basic",
		"client create acme --label hush2":                        "--label: give key=value",
		"client list hush2":                                       "argument 1 is too many: it takes none\n",
		"client list -o hush2":                                    "--output: give one of table",
		"client secret add acme --secret=hush2":                   "unknown flag: --secret\n",
		"client secret add acme --secret-stdin=hush2":             "--secret-stdin: give a value of the type bool\n",
		"client secret add acme --secret-file hush2":              "--secret-file: no such file or directory\n",
		"client secret add acme -hush2":                           "an argument begins with - and is no flag\n",
		"client secret add acme --hush2":                          "an argument begins with - and is no flag\n",
		"client secret add acme --=hush2":                         "an argument begins with - and is no flag\n",
		"client secret add acme --secret-file":                    "--secret-file: the value is missing\n",
		"client secret add acme --timeout hush2":                  "--timeout: give a value of the type duration\n",
		"connect a hush2":                                         "argument 2 is too many: it takes CREDENTIAL\n",
		"connect a --port hush2":                                  "--port: give a value of the type int\n",
		"connect a --label hush2":                                 "--label: give key=value",
		"import a b hush2":                                        "argument 3 is too many: it takes CREDENTIAL FILE\n",
		"import a hush2":                                          "argument 2: no such file or directory\n",
		"import -f hush2":                                         "--filename: no such file or directory\n",
		"consent accept a hush2":                                  "argument 2 is too many: it takes CONSENT\n",
		"consent hush2":                                           `argument 1 is no command of "tokenctl consent"`,
		"credential revoke a hush2":                               "argument 2 is too many: it takes CREDENTIAL\n",
		"credential update a --param hush2":                       "--param: give key=value",
		"credential create a --grant hush2":                       "--grant: give one of authorization_code",
		"credential create a --password hush2":                    "unknown flag: --password\n",
		"client secret add a --private-key-file hush2":            "--private-key-file: no such file or directory\n",
		"client secret add a --rotate-after hush2":                "--rotate-after: give a duration",
		"provider lint hush2":                                     "argument 1: no such file or directory\n",
		"client list --limit hush2":                               "--limit: give a value of the type number above 0\n",
		"credential create a hush2":                               "argument 2 is too many: it takes CREDENTIAL\n",
		"credential create -f hush2":                              "--filename: no such file or directory\n",
		"credential create hush2 -f request":                      "leave out the argument\n",
		"credential import a hush2":                               "argument 2 is too many: it takes CREDENTIAL\n",
		"credential import a --refresh-token-expires hush2":       "--refresh-token-expires: give a time such as 2",
		"credential create -f " + filepath.Join(w.dir, "request"): "spec.grantType: give one of " + grantList() + "\n",
	} {
		cmd := exec.Command("tokenctl", strings.Fields(line)...)
		cmd.Env = w.environ()
		out, err := cmd.CombinedOutput()
		ended, ok := errors.AsType[*exec.ExitError](err)
		if !ok || ended.ExitCode() != exitUsage || !strings.Contains(string(out), says) || strings.Contains(string(out), "hush") {
			t.Errorf("%s: %v: got %q, want %q, and not the secret", line, err, out, says)
		}
	}
}

// grantList is what an error lists of the grants.
func grantList() string {
	return strings.TrimPrefix(wanted((&tokenbrokerv1.CredentialSpec{}).ProtoReflect().Descriptor().Fields().ByName("grant_type")), "give one of ")
}

func TestAFieldThatDoesNotFitIsNamedWithoutItsValue(t *testing.T) {
	for text, says := range map[string]string{
		"spec: {grantType: hush2}":                    "f: spec.grantType: give one of " + grantList(),
		"spec: {grantType: [hush2]}":                  "f: spec.grantType: give one of " + grantList(),
		"spec: hush2":                                 "f: spec: give an object",
		"spec: {scopes: hush2}":                       "f: spec.scopes: give a list of strings",
		"spec: {labels: {a: [hush2]}}":                "f: spec.labels: give an object of strings",
		"spec: {labels: hush2}":                       "f: spec.labels: give an object of strings",
		"spec: {owner: {hush2: 1}}":                   "f: spec.owner: give one string",
		"validateOnly: hush2":                         "f: validateOnly: give one bool",
		"refreshTokenExpireTime: hush2":               "f: refreshTokenExpireTime: give a time in RFC 3339",
		"refreshTokenExpireTime: {hush2: 1}":          "f: refreshTokenExpireTime: give a time in RFC 3339",
		"{\"refreshToken:hush2\": 1}":                 "f: unknown field in the object",
		"spec: {hush2: x}":                            "f: unknown field in spec",
		"spec: {scope: hush2}":                        "f: unknown field spec.scope",
		"spec: {oauthClient: a, oauth_client: hush2}": "f: spec: give each field once",
		"refreshTokenExpireTime: null\nrefresh_token_expire_time: null\nvalidate_only: true\nvalidateOnly: true": "f: give each field once",
	} {
		var req tokenbrokerv1.CreateCredentialRequest
		err := parseRequest("f", []byte(text), &req)
		if err == nil || err.Error() != says {
			t.Errorf("%s: got %v, want %s", text, err, says)
		}
	}
}

func TestAHostileNameOfTheBrokerDoesNothingToATerminal(t *testing.T) {
	const bad = "a\x1b[2J\nb\u202e"
	secrets := []*tokenbrokerv1.ClientSecret{{SecretId: bad, Fingerprint: bad}, {SecretId: bad}}
	c := &tokenbrokerv1.OAuthClient{OauthClient: bad, Etag: bad, Secrets: secrets, Spec: &tokenbrokerv1.OAuthClientSpec{
		Provider: bad, ClientId: bad, Labels: map[string]string{bad: bad}}}
	var b strings.Builder
	b.WriteString(rotation(bad, c))
	if want := "retire 'a\\u001b[2J\\u000ab\\u202e' 'a\\u001b[2J\\u000ab\\u202e'\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("got %q, want %q at its end", b.String(), want)
	}
	for _, sections := range [][]section{clientSections(c, c.GetUpdateTime().AsTime()), {{bad, [][2]string{{bad, bad}}}}} {
		if err := describe(&b, sections); err != nil {
			t.Fatal(err)
		}
	}
	s := &session{cli: &cli{out: &b, errs: &b}}
	if err := s.showClient(&tokenbrokerv1.GetOAuthClientResponse{OauthClient: c}); err != nil {
		t.Fatal(err)
	}
	sub := &subscription{session: s, names: []string{bad}}
	if err := sub.line("now", bad, "1", "READY", "-"); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(b.String(), "\n", "")
	if i := strings.IndexFunc(text, unsafe); i >= 0 {
		t.Errorf("a control character got out: %q", text[max(0, i-40):])
	}
	if strings.Contains(b.String(), "\nb") {
		t.Errorf("a name made a line of its own: %q", b.String())
	}
}
