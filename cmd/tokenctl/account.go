package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// undoing is how long the cancelling of a consent may take when somebody leaves.
const undoing = 5 * time.Second

// connection is "connect": an account is connected to a credential.
type connection struct {
	credentialFlags
	name                    string
	noBrowser, device, link bool
	wait                    bool
	port                    int
	expect                  string
	reauthorize, replace    bool
}

const connectLong = `Connects an account: a person consents at the provider, and the credential has a grant to live on. The credential is made if it is
not there; --reauthorize renews one that is, and keeps its name, rules and history. Everything is checked before anybody is asked.

  (nothing)      opens a browser here and catches the answer on a port of this machine
  --no-browser   prints a URL for a browser anywhere; what it is sent to is pasted here, without echo
  --device       prints a code to type in on another device (RFC 8628)
  --link         prints a one-time link for the owner of the account, who needs nothing but a browser; "consent accept" takes the
                 account that they consented with

The broker keeps the PKCE verifier and redeems the code: no token gets here. Ctrl-C cancels the consent, but not a link.`

func (c *cli) connectCommand() *cobra.Command {
	cn := &connection{}
	cmd := &cobra.Command{Use: "connect CREDENTIAL", Short: "Connect an account: a person consents in a browser", Args: takes("CREDENTIAL"),
		ValidArgsFunction: c.credentialNames(1), Long: connectLong,
		Example: `  tokenctl connect example/drive --provider google --scope https://www.googleapis.com/auth/drive.readonly
  tokenctl connect example/drive --provider google --no-browser            # over ssh
  tokenctl connect example/drive --provider google --link --expect-account reports@corp.example
  tokenctl connect example/drive --reauthorize`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		cn.name = args[0]
		if err := cn.check(cmd); err != nil {
			return err
		}
		return s.connectAccount(ctx, cn)
	})
	f := cmd.Flags()
	f.StringVar(&cn.spec.Provider, "provider", "", "name of a provider; \"provider list\" has them")
	cn.add(c, cmd)
	f.BoolVar(&cn.noBrowser, "no-browser", false, "print the URL, and read where the browser was sent to")
	f.BoolVar(&cn.device, "device", false, "print a code to type in on another device")
	f.BoolVar(&cn.link, "link", false, "print a one-time link for the owner of the account")
	f.BoolVar(&cn.wait, "wait", false, "with --link: wait until they have consented")
	f.IntVar(&cn.port, "port", 0, "catch the answer on this `port` (default: any that is free)")
	f.StringVar(&cn.expect, "expect-account", "", "refuse any other account, as the provider names it")
	f.BoolVar(&cn.reauthorize, "reauthorize", false, "renew the consent of a credential that is there; another account is refused")
	f.BoolVar(&cn.replace, "replace-account", false, "with --reauthorize and --expect-account: let that account take the place of the present one")
	c.completeProvider(cmd)
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// check finds flags that contradict each other.
func (cn *connection) check(cmd *cobra.Command) error {
	var ways []string
	for _, flag := range []string{"no-browser", "device", "link"} {
		if on, _ := cmd.Flags().GetBool(flag); on {
			ways = append(ways, "--"+flag)
		}
	}
	switch {
	case len(ways) > 1:
		return usagef("give one of %s", strings.Join(ways, ", "))
	case cn.wait && !cn.link:
		return usagef("--wait goes with --link; the other ways wait anyway")
	case cmd.Flags().Changed("port") && (len(ways) > 0 || cn.port < 1 || cn.port > 65535):
		return usagef("--port: give a port from 1 to 65535, and none of --no-browser, --device and --link")
	case cn.replace && (cn.expect == "" || !cn.reauthorize):
		return usagef("--replace-account goes with --reauthorize and --expect-account: say which account it is to be")
	}
	return cn.fill()
}

// grant is what a new credential gets.
func (cn *connection) grant() tokenbrokerv1.GrantType {
	if cn.device {
		return tokenbrokerv1.GrantType_GRANT_TYPE_DEVICE_CODE
	}
	return tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE
}

func (s *session) connectAccount(ctx context.Context, cn *connection) error {
	cred, made, err := s.toConnect(ctx, cn)
	if err != nil {
		return err
	}
	end, err := s.consent(ctx, cn, cred)
	if err != nil {
		if made {
			_, _ = fmt.Fprintf(s.errs, "credential %s is there and waits for its consent; the same command goes on, or: tokenctl credential delete %s\n",
				clean(cn.name), clean(word(cn.name)))
		}
		return err
	}
	return s.connected(end)
}

// toConnect finds the credential, or makes it.
func (s *session) toConnect(ctx context.Context, cn *connection) (cred *tokenbrokerv1.Credential, made bool, err error) {
	got, err := call(ctx, s, s.creds.GetCredential, &tokenbrokerv1.GetCredentialRequest{Credential: cn.name})
	if f, ok := errors.AsType[*failure](err); ok && f.reason == "CREDENTIAL_NOT_FOUND" && !cn.reauthorize {
		cred, err := s.makeForConsent(ctx, cn)
		return cred, true, err
	}
	if err != nil {
		return nil, false, err
	}
	return got.GetCredential(), false, cn.fits(got.GetCredential())
}

// fits says why a credential that is there can't be connected as the flags say.
func (cn *connection) fits(c *tokenbrokerv1.Credential) error {
	spec, name := c.GetSpec(), word(c.GetCredential())
	var other []string
	for _, f := range []struct{ flag, want, is string }{
		{"--provider", cn.spec.GetProvider(), spec.GetProvider()}, {"--client", cn.spec.GetOauthClient(), spec.GetOauthClient()},
		{"--subject", cn.spec.GetSubject(), spec.GetSubject()}, {"--audience", cn.spec.GetAudience(), spec.GetAudience()},
		{"--owner", cn.spec.GetOwner(), spec.GetOwner()},
	} {
		if f.want != "" && f.want != f.is {
			other = append(other, f.flag)
		}
	}
	fix := func(what, do string) error {
		return &failure{exit: exitConflict, what: "credential " + c.GetCredential() + " " + what, do: do}
	}
	device := spec.GetGrantType() == tokenbrokerv1.GrantType_GRANT_TYPE_DEVICE_CODE
	switch {
	case len(other) > 0:
		return fix("is there with another value of "+strings.Join(other, ", "), "tokenctl credential describe "+name)
	case !consents(spec.GetGrantType()):
		return fix("lives on the grant "+grantWord(spec.GetGrantType())+", to which nobody consents here", revive(c))
	case device != cn.device:
		return fix("has the grant "+grantWord(spec.GetGrantType()), reconnect(c))
	case connectedAlready(c) && !cn.reauthorize:
		return fix("is connected already"+ofAccount(c.GetStatus().GetAccount())+"; --reauthorize renews its consent", reconnect(c))
	}
	return nil
}

func consents(g tokenbrokerv1.GrantType) bool {
	return g == tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE || g == tokenbrokerv1.GrantType_GRANT_TYPE_DEVICE_CODE
}

func connectedAlready(c *tokenbrokerv1.Credential) bool {
	st := c.GetStatus()
	return st.GetHasRefreshToken() || st.GetConsentTime() != nil || st.GetAccount() != ""
}

func ofAccount(account string) string {
	if account == "" {
		return ""
	}
	return " to " + account
}

// reconnect is the command that renews a consent.
func reconnect(c *tokenbrokerv1.Credential) string {
	command := "tokenctl connect " + word(c.GetCredential())
	if c.GetSpec().GetGrantType() == tokenbrokerv1.GrantType_GRANT_TYPE_DEVICE_CODE {
		command += " --device"
	}
	return command + " --reauthorize"
}

// makeForConsent adds the credential that is to be connected.
func (s *session) makeForConsent(ctx context.Context, cn *connection) (*tokenbrokerv1.Credential, error) {
	if cn.spec.GetProvider() == "" {
		return nil, usageError("credential "+cn.name+" is not there: give --provider to make it", "tokenctl provider list")
	}
	if cn.spec.GetOauthClient() == "" {
		client, err := s.onlyClient(ctx, cn.spec.GetProvider())
		if err != nil {
			return nil, err
		}
		cn.spec.OauthClient = client
	}
	cn.spec.GrantType = cn.grant()
	resp, err := call(ctx, s, s.creds.CreateCredential, &tokenbrokerv1.CreateCredentialRequest{Credential: cn.name, Spec: &cn.spec})
	if err != nil {
		return nil, err
	}
	s.warn(resp.GetWarnings())
	return resp.GetCredential(), nil
}

// onlyClient is the OAuth client of a provider, if there is one and no other.
func (s *session) onlyClient(ctx context.Context, provider string) (string, error) {
	all, err := s.allClients(ctx, pages{size: pageSize})
	if err != nil {
		return "", err
	}
	all = slices.DeleteFunc(all, func(c *tokenbrokerv1.OAuthClient) bool { return c.GetSpec().GetProvider() != provider })
	if len(all) == 1 {
		_, _ = fmt.Fprintf(s.errs, "with the OAuth client %s\n", clean(all[0].GetOauthClient()))
		return all[0].GetOauthClient(), nil
	}
	if len(all) == 0 {
		if _, err := call(ctx, s, s.providers.GetProvider, &tokenbrokerv1.GetProviderRequest{Provider: provider}); unknownProvider(err) {
			return "", err
		}
		return "", usageError("provider "+provider+" has no OAuth client here: add what you registered there",
			"tokenctl client create NAME --provider "+word(provider)+" --client-id CLIENT_ID   # \"tokenctl provider show "+word(provider)+"\" says where to register")
	}
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = c.GetOauthClient()
	}
	return "", usagef("provider %s has several OAuth clients: give --client with one of %s", provider, strings.Join(names, ", "))
}

// unknownProvider reports whether an error is that there is no such provider.
func unknownProvider(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && f.reason == "UNKNOWN_PROVIDER"
}

// warn prints what the broker wants to be known.
func (s *session) warn(warnings []string) {
	for _, w := range warnings {
		_, _ = fmt.Fprintf(s.errs, "warning: %s\n", clean(w))
	}
}
