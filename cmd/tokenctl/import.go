package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// importing is "import": a credential with its OAuth client, of what somebody has in a file.
type importing struct {
	credentialFlags
	name     string
	grant    string
	holding  holdingFlags
	file     string // of many
	validate bool
	dry      bool
}

const importLong = `Brings what you have in a file, in one step: the OAuth client and the credential.

  a key file of a Google service account    the OAuth client has its key, the credential the grant jwt_bearer; with --subject it acts
                                            for that user; with --audience and neither --scope nor --subject it is self_signed_jwt
  an authorized_user file of gcloud         the OAuth client has the file's id and secret, the credential its refresh token
  --refresh-token-stdin, -file              a refresh token of an OAuth client that is there: the same as "credential create"
  -f FILE                                   many OAuth clients and credentials; see docs/tokenctl.md for its form

The OAuth client is called as the credential unless --client names it. Nothing stays half done: what was made is taken back if the
credential is refused. With -f each item is by itself; run it again, and it goes on with what is missing. A refresh token, secret or
key of what is there already is not sent again.`

func (c *cli) importCommand() *cobra.Command {
	im := &importing{holding: newHolding()}
	cmd := &cobra.Command{Use: "import [CREDENTIAL [FILE]]", Short: "Bring a key file, a refresh token, or a file of many credentials", Args: atMost("CREDENTIAL", "FILE"),
		Long: importLong, ValidArgsFunction: filesSecond,
		Example: `  tokenctl import example/robot sa.json --scope https://www.googleapis.com/auth/drive.readonly
  tokenctl import example/robot sa.json --scope https://mail.google.com/ --subject reports@corp.example
  tokenctl import example/drive --provider acme --client acme-app --refresh-token-stdin < rt
  tokenctl import -f credentials.yaml --dry-run`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		if im.file != "" {
			if err := alone(cmd, args); err != nil {
				return err
			}
			return s.importMany(ctx, im)
		}
		if im.dry {
			return usagef("--dry-run goes with -f; --validate-only checks one credential")
		}
		return s.importOne(ctx, im, args)
	})
	f := cmd.Flags()
	f.StringVar(&im.spec.Provider, "provider", "", "name of a provider (default: google-service-account or google, as the file says)")
	f.StringVar(&im.grant, "grant", "", "how tokens are obtained, if not as the file suggests: "+strings.Join(keys(grants), ", "))
	im.add(c, cmd)
	im.holding.add(cmd)
	f.StringVarP(&im.file, "filename", "f", "", "import the OAuth clients and credentials of a `file`, or - for standard input")
	f.BoolVar(&im.validate, "validate-only", false, "check everything and store nothing")
	f.BoolVar(&im.dry, "dry-run", false, "with -f: show what would be made and changed, and do nothing")
	complete(cmd, "grant", keys(grants)...)
	c.completeProvider(cmd)
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// filesSecond completes a file as the second argument.
func filesSecond(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func (s *session) importOne(ctx context.Context, im *importing, args []string) error {
	if len(args) == 0 {
		return usagef("name the credential, or give -f")
	}
	im.name = args[0]
	if err := im.fill(); err != nil {
		return err
	}
	one, err := im.holding.given()
	switch {
	case err != nil:
		return err
	case one != nil && len(args) == 2:
		return usagef("give a file or --%s-…, not both", one.name)
	case one != nil:
		return s.importSecret(ctx, im, one)
	case len(args) < 2:
		return usagef("the file is missing; or give --refresh-token-stdin, --refresh-token-file or -f")
	}
	data, err := s.keyArgument(ctx, args[1])
	if err != nil {
		return err
	}
	key, err := readKeyFile(data)
	if err != nil {
		return err
	}
	return s.importKeyFile(ctx, im, key)
}

// keyArgument reads the file that an argument names. Its name gets into no error: it may be a secret in the wrong place.
func (s *session) keyArgument(ctx context.Context, path string) (tokenbroker.Secret, error) {
	in := s.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return tokenbroker.Secret{}, unopened("argument 2", err)
		}
		defer f.Close()
		in = f
	}
	defer s.interruptible(ctx, func() {})()
	data, err := limited(in)
	switch {
	case err != nil:
		return tokenbroker.Secret{}, unopened("argument 2", err)
	case len(data) > tokenbroker.MaxSecretBytes:
		return tokenbroker.Secret{}, usagef("the file has more than %d bytes: is it the right one?", tokenbroker.MaxSecretBytes)
	}
	return tokenbroker.NewSecret(string(data)), nil
}

// importSecret is a credential of an OAuth client that is there, with what it lives on.
func (s *session) importSecret(ctx context.Context, im *importing, one *secretFlags) error {
	byFlag := map[string]string{"refresh-token": "refresh_token", "static-token": "static", "password": "password", "subject-token": "token_exchange"}
	grant, err := choose("grant", or(im.grant, byFlag[one.name]), grants)
	if err != nil {
		return err
	}
	im.spec.GrantType = grant
	req := &tokenbrokerv1.CreateCredentialRequest{Credential: im.name, Spec: &im.spec, ValidateOnly: im.validate}
	if err := im.holding.times(req); err != nil {
		return err
	}
	if err := im.holding.fill(ctx, s.cli, req, ""); err != nil {
		return err
	}
	return s.make(ctx, req)
}

// make makes a credential and shows it.
func (s *session) make(ctx context.Context, req *tokenbrokerv1.CreateCredentialRequest) error {
	resp, err := call(ctx, s, s.creds.CreateCredential, req)
	if err != nil {
		return err
	}
	s.warn(resp.GetWarnings())
	if !req.GetValidateOnly() {
		resp.Credential = s.settled(ctx, resp.GetCredential())
		s.consentNext(resp.GetCredential())
	}
	return s.stands(resp)
}

// importKeyFile makes the OAuth client and the credential of a key file.
func (s *session) importKeyFile(ctx context.Context, im *importing, key *keyFile) error {
	client, req, err := key.requests(im)
	if err != nil {
		return err
	}
	made, err := s.clientOf(ctx, client, key)
	if err != nil {
		return err
	}
	if im.validate && made == nil { // the broker can't judge a credential whose OAuth client is not there
		_, _ = fmt.Fprintf(s.errs, "the OAuth client %s is all right; the credential can be checked when it is there\n", clean(client.GetOauthClient()))
		return nil
	}
	if err := s.make(ctx, req); err != nil {
		if made.fresh {
			s.takeBack(ctx, client.GetOauthClient())
		}
		return err
	}
	if im.validate {
		return nil
	}
	_, err = io.WriteString(s.errs, key.advice(im, made.client))
	return err
}

// usable is an OAuth client that a credential can have.
type usable struct {
	client *tokenbrokerv1.OAuthClient
	fresh  bool // made just now
}

// clientOf makes the OAuth client of a key file. One that is there and has the same id and the same key will do. It is nil if it was only
// checked.
func (s *session) clientOf(ctx context.Context, req *tokenbrokerv1.CreateOAuthClientRequest, key *keyFile) (*usable, error) {
	got, err := call(ctx, s, s.clients.GetOAuthClient, &tokenbrokerv1.GetOAuthClientRequest{OauthClient: req.GetOauthClient()})
	f, known := errors.AsType[*failure](err)
	switch {
	case err == nil:
		return s.same(got.GetOauthClient(), req, key)
	case !known || f.exit != exitNotFound && f.exit != exitDenied:
		return nil, err
	}
	made, err := call(ctx, s, s.clients.CreateOAuthClient, req)
	if err != nil || req.GetValidateOnly() {
		return nil, err
	}
	return &usable{client: made.GetOauthClient(), fresh: true}, nil
}

// same says whether an OAuth client that is there is the one of the key file.
func (s *session) same(c *tokenbrokerv1.OAuthClient, req *tokenbrokerv1.CreateOAuthClientRequest, key *keyFile) (*usable, error) {
	name := word(c.GetOauthClient())
	if c.GetSpec().GetClientId() != req.GetSpec().GetClientId() || c.GetSpec().GetProvider() != req.GetSpec().GetProvider() {
		return nil, &failure{exit: exitConflict, what: "OAuth client " + c.GetOauthClient() + " is there and is another one", action: "give --client with a new name",
			do: "tokenctl client describe " + name}
	}
	for _, secret := range c.GetSecrets() {
		if key.KeyID != "" && secret.GetKeyId() == key.KeyID {
			return &usable{client: c}, nil
		}
	}
	if key.KeyID == "" {
		_, _ = fmt.Fprintf(s.errs, "the OAuth client %s is there; its secret is not sent again\n", clean(c.GetOauthClient()))
		return &usable{client: c}, nil
	}
	return nil, &failure{exit: exitConflict, what: "OAuth client " + c.GetOauthClient() + " is there, without the key of this file", action: "add the key, then import again",
		do: "tokenctl client secret add " + name + " --private-key-file FILE"}
}

// takeBack removes an OAuth client whose credential was refused.
func (s *session) takeBack(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(undoing, s.timeout))
	defer cancel()
	if _, err := s.clients.DeleteOAuthClient(ctx, &tokenbrokerv1.DeleteOAuthClientRequest{OauthClient: name}); err != nil {
		_, _ = fmt.Fprintf(s.errs, "the OAuth client stays: tokenctl client delete %s\n", clean(word(name)))
	}
}
