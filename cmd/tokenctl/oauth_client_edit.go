package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// authMethods are the ways to authenticate by their names in the OAuth standards.
var authMethods = map[string]tokenbrokerv1.AuthMethod{
	"client_secret_basic": tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_BASIC,
	"client_secret_post":  tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_POST,
	"none":                tokenbrokerv1.AuthMethod_AUTH_METHOD_NONE,
	"client_secret_jwt":   tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_JWT,
	"private_key_jwt":     tokenbrokerv1.AuthMethod_AUTH_METHOD_PRIVATE_KEY_JWT,
	"tls_client_auth":     tokenbrokerv1.AuthMethod_AUTH_METHOD_TLS_CLIENT_AUTH,
	"service_account":     tokenbrokerv1.AuthMethod_AUTH_METHOD_SERVICE_ACCOUNT,
}

func authWord(m tokenbrokerv1.AuthMethod) string {
	return strings.ToLower(enum(m.String(), "AUTH_METHOD_"))
}

// clientFlags are the fields of an OAuthClientSpec that can be changed, as flags.
type clientFlags struct {
	spec   tokenbrokerv1.OAuthClientSpec
	auth   string
	labels []string
}

func (f *clientFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.spec.ClientId, "client-id", "", "the client identifier at the provider")
	cmd.Flags().StringVar(&f.auth, "auth-method", "client_secret_basic", "how it authenticates: "+strings.Join(keys(authMethods), ", "))
	cmd.Flags().StringArrayVar(&f.labels, "label", nil, "a label, as `key=value`; repeatable")
	complete(cmd, "auth-method", keys(authMethods)...)
}

func (f *clientFlags) fill() (err error) {
	if f.spec.AuthMethod, err = choose("auth-method", f.auth, authMethods); err != nil {
		return err
	}
	f.spec.Labels, err = parsePairs("label", f.labels)
	return err
}

// clientCreation is "client create".
type clientCreation struct {
	clientFlags
	req   tokenbrokerv1.CreateOAuthClientRequest
	proof proofFlags
	file  string
}

func (c *cli) clientCreate() *cobra.Command {
	cr := &clientCreation{proof: newProof()}
	cmd := &cobra.Command{Use: "create CLIENT", Short: "Add an OAuth client", Args: atMost("CLIENT"), ValidArgsFunction: cobra.NoFileCompletions,
		Long: `Adds an OAuth client: what the broker authenticates as at a provider. Its secret comes from standard input, a file, or a prompt
without echo on a terminal. With private_key_jwt, tls_client_auth and service_account it has a private key instead, with
tls_client_auth its certificate, too; a public client (--auth-method none) has nothing.

With -f it takes a CreateOAuthClientRequest in JSON or YAML instead of flags; a key that it does not know is an error.`,
		Example: `  tokenctl client create acme-jobs --provider acme --client-id jobs                # asks for the secret
  pass show acme/jobs | tokenctl client create acme-jobs --provider acme --client-id jobs --secret-stdin
  tokenctl client create acme-key --provider acme --client-id jobs --auth-method private_key_jwt --private-key-file key.pem --rotate-after 90d`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		if err := cr.request(ctx, s, cmd, args); err != nil {
			return err
		}
		resp, err := call(ctx, s, s.clients.CreateOAuthClient, &cr.req)
		if err != nil {
			return err
		}
		return s.showClient(resp)
	})
	cmd.Flags().StringVar(&cr.spec.Provider, "provider", "", "name of a provider in the broker's configuration")
	cr.add(cmd)
	cr.proof.add(cmd)
	c.completeProvider(cmd)
	cmd.Flags().StringVarP(&cr.file, "filename", "f", "", "take the request from a `file`, or - for standard input")
	cmd.Flags().BoolVar(&cr.req.ValidateOnly, "validate-only", false, "check everything and store nothing")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// request makes the request of flags, or of a file.
func (cr *clientCreation) request(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
	only := cr.req.GetValidateOnly()
	switch {
	case cr.file != "":
		if err := alone(cmd, args); err != nil {
			return err
		}
		if err := s.load(ctx, cr.file, &cr.req); err != nil {
			return err
		}
		cr.req.ValidateOnly = only || cr.req.GetValidateOnly()
	case len(args) == 0:
		return usagef("name the OAuth client, or give -f")
	default:
		if err := cr.fill(); err != nil {
			return err
		}
		cr.req.OauthClient, cr.req.Spec = args[0], &cr.spec
	}
	if cr.file == "-" && cr.proof.stdin() {
		return usagef("standard input can't be both the request and a secret")
	}
	return cr.proof.fill(ctx, s.cli, &cr.req, cr.file == "" && cr.spec.GetAuthMethod() != authMethods["none"], keyed(cr.spec.GetAuthMethod()))
}

func (c *cli) clientUpdate() *cobra.Command {
	var f clientFlags
	var req tokenbrokerv1.UpdateOAuthClientRequest
	cmd := &cobra.Command{Use: "update CLIENT", Short: "Change what the flags name, and nothing else", Args: takes("CLIENT"), ValidArgsFunction: c.clientNames(),
		Long: `Changes what the flags name, and nothing else. Labels are replaced as a whole; --label '' leaves none. Credentials that the
provider refused for the sake of this OAuth client are tried again at once.`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		if err := f.fill(); err != nil {
			return err
		}
		req.OauthClient, req.Spec = args[0], &f.spec
		var err error
		if req.UpdateMask, err = mask(cmd, "client-id:client_id", "auth-method:auth_method", "label:labels"); err != nil {
			return err
		}
		resp, err := call(ctx, s, s.clients.UpdateOAuthClient, &req)
		if err != nil {
			return err
		}
		return s.showClient(resp)
	})
	f.add(cmd)
	cmd.Flags().StringVar(&req.Etag, "etag", "", "change it only if this is still its etag")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

func (c *cli) secretAdd() *cobra.Command {
	proof := newProof()
	cmd := &cobra.Command{Use: "add CLIENT", Short: "Add a secret or key beside those that there are", Args: takes("CLIENT"), ValidArgsFunction: c.clientNames(),
		Long: `Adds a secret, or with --private-key-file a key, beside those that there are. To rotate one without a gap: add the new one, end the
old one at the provider, see that "tokenctl credential refresh" works, retire the old one.
The secret that worked last is tried first. Broker and metrics warn 30, 7 and 1 day before --expires, and after --rotate-after.`,
		Example: `  tokenctl client secret add acme-jobs                      # asks for it
  tokenctl client secret add acme-jobs --secret-file new-secret --expires 2027-06-01T00:00:00Z
  tokenctl client secret add robot --private-key-file robot-2.json`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		req := &tokenbrokerv1.AddClientSecretRequest{OauthClient: args[0]}
		if err := proof.fill(ctx, s.cli, req, true, false); err != nil {
			return err
		}
		resp, err := call(ctx, s, s.clients.AddClientSecret, req)
		if err != nil {
			return err
		}
		if c.format == "table" {
			_, _ = io.WriteString(s.errs, rotation(args[0], resp.GetOauthClient()))
		}
		return s.showClient(resp)
	})
	proof.add(cmd)
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// rotation says how to end a rotation, if one has begun.
func rotation(name string, c *tokenbrokerv1.OAuthClient) string {
	n := len(c.GetSecrets())
	if n < 2 {
		return ""
	}
	command := "tokenctl client secret retire " + word(name) + " " + word(c.GetSecrets()[0].GetSecretId())
	return fmt.Sprintf("it has %d secrets now; the new one is tried when the provider refuses the one that worked last: end that one there, "+
		"see that \"tokenctl credential refresh\" works, then: %s\n", n, clean(command))
}

func (c *cli) secretRetire() *cobra.Command {
	cmd := &cobra.Command{Use: "retire CLIENT SECRET_ID", Short: "Remove one secret; \"client describe\" lists their ids", Args: takes("CLIENT", "SECRET_ID"),
		ValidArgsFunction: c.secretIDs}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		resp, err := call(ctx, s, s.clients.RetireClientSecret, &tokenbrokerv1.RetireClientSecretRequest{OauthClient: args[0], SecretId: args[1]})
		if err != nil {
			return err
		}
		return s.showClient(resp)
	})
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}
