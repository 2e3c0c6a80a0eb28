package dev_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenbroker/tokenbroker/client"
	"github.com/tokenbroker/tokenbroker/cmd/tokenbrokerd/dev"
	"github.com/tokenbroker/tokenbroker/mtls"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// operator connects as the env file says.
func operator(t *testing.T, dir string) *client.Client {
	t.Helper()
	env, err := os.ReadFile(dir + "/env")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^export TOKENBROKER_([A-Z]+)='(.*)'$`).FindAllStringSubmatch(string(env), -1) {
		values[m[1]] = m[2]
	}
	c, err := client.New(client.Config{Addr: values["ADDR"], Files: mtls.Files{CA: values["CA"], Cert: values["CERT"], Key: values["KEY"]}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestWhatAnOperatorDoesIsSeen(t *testing.T) {
	t.Parallel()
	r := start(t, dev.Config{}, true)
	r.await(t, "4 example/reports +READY")
	c := operator(t, r.folder(t))
	clients, credentials := tokenbrokerv1.NewOAuthClientServiceClient(c.Conn()), tokenbrokerv1.NewCredentialServiceClient(c.Conn())
	if _, err := clients.CreateOAuthClient(t.Context(), &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: "mine", ClientSecret: "wrong",
		Spec: &tokenbrokerv1.OAuthClientSpec{Provider: "rotating", ClientId: "unheard-of",
			AuthMethod: tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC}}); err != nil {
		t.Fatal(err)
	}
	if _, err := credentials.CreateCredential(t.Context(), &tokenbrokerv1.CreateCredentialRequest{Credential: "example/zz", RefreshToken: "made-up",
		Spec: &tokenbrokerv1.CredentialSpec{Provider: "rotating", OauthClient: "mine", GrantType: tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN}}); err != nil {
		t.Fatal(err)
	}
	r.await(t, "refresh failed: invalid_client → MISCONFIGURED")
	r.await(t, "5 example/zz +MISCONFIGURED")
	r.press(t, "5c")
	r.await(t, "the sandbox does not know its client id unheard-of")
	r.press(t, "r")
	r.await(t, "there is no live token to know the grant by")
	if _, err := credentials.DisableCredential(t.Context(), &tokenbrokerv1.DisableCredentialRequest{Credential: "example/zz"}); err != nil {
		t.Fatal(err)
	}
	r.await(t, "5 example/zz +DISABLED .* by an operator's hand")
	if _, err := credentials.DeleteCredential(t.Context(), &tokenbrokerv1.DeleteCredentialRequest{Credential: "example/zz"}); err != nil {
		t.Fatal(err)
	}
	r.await(t, "example/zz +was deleted")
	r.await(t, "› ?1 example/billing") // there is no fifth row to be chosen any more
	r.noSecrets(t)
}

func TestASubscriberOfOnesOwnCounts(t *testing.T) {
	t.Parallel()
	r := start(t, dev.Config{}, true)
	r.await(t, `example/drive +READY .* s? *3 `)
	c := operator(t, r.folder(t))
	for u, err := range c.Subscribe(t.Context(), "example/drive") {
		if err != nil || u.Token == nil {
			t.Fatalf("got %v, %v", u, err)
		}
		r.await(t, `example/drive +READY .* 4 `)
		break
	}
	r.await(t, `example/drive +READY .* 3 `)
}

func TestWhatCannotBeDoneNowIsSaid(t *testing.T) {
	t.Parallel()
	r := start(t, dev.Config{}, true)
	r.await(t, "3 ● API says 200")
	r.press(t, "kkkk")
	r.await(t, "all workers are dead already")
	r.press(t, "d")
	r.await(t, "drained, back in 3 s")
	r.press(t, "dn")
	r.await(t, "there is no broker to drain")
	r.await(t, "the broker is away; it comes back")
	r.await(t, "the broker is back")
	r.await(t, `example/drive +READY .* 3 `) // with all its workers
}

func TestAFolderServesOneKindOfRunAfterTheOther(t *testing.T) {
	t.Parallel()
	dir, s := t.TempDir()+"/its", newSite(t, ownPolicy)
	for _, own := range []bool{false, true, true, false} {
		c := dev.Config{Dir: dir}
		if own {
			c.Own = &s.cfg
		}
		r := start(t, c, false)
		r.await(t, "\nready\n")
		if _, err := tokenbrokerv1.NewCredentialServiceClient(operator(t, dir).Conn()).ListCredentials(t.Context(), &tokenbrokerv1.ListCredentialsRequest{}); err != nil {
			t.Errorf("own config %v: %v", own, err)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		_, err := os.Stat(dir + "/identities")
		if (err == nil) != own {
			t.Errorf("own config %v: identities: %v", own, err)
		}
	}
}

func TestNoColourIsAskedForByTheEnvironment(t *testing.T) {
	for value, want := range map[string]bool{"": true, "1": false} {
		t.Setenv("NO_COLOR", value)
		if got := dev.Colour(); got != want {
			t.Errorf("NO_COLOR=%q: got %v, want %v", value, got, want)
		}
	}
}

func TestAFolderThatCannotBeMadeIsSaid(t *testing.T) {
	t.Parallel()
	if err := dev.Run(t.Context(), dev.Config{Dir: "/dev/null/x", Out: newOutput()}); err == nil || !strings.Contains(err.Error(), "/dev/null") {
		t.Errorf("got %v", err)
	}
}
