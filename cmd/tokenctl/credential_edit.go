package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// grants are the grant types by their names in the OAuth standards.
var grants = map[string]tokenbrokerv1.GrantType{
	"client_credentials": tokenbrokerv1.GrantType_GRANT_TYPE_CLIENT_CREDENTIALS,
	"refresh_token":      tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN,
	"authorization_code": tokenbrokerv1.GrantType_GRANT_TYPE_AUTHORIZATION_CODE,
	"device_code":        tokenbrokerv1.GrantType_GRANT_TYPE_DEVICE_CODE,
	"jwt_bearer":         tokenbrokerv1.GrantType_GRANT_TYPE_JWT_BEARER,
	"self_signed_jwt":    tokenbrokerv1.GrantType_GRANT_TYPE_SELF_SIGNED_JWT,
	"token_exchange":     tokenbrokerv1.GrantType_GRANT_TYPE_TOKEN_EXCHANGE,
	"google_adc":         tokenbrokerv1.GrantType_GRANT_TYPE_GOOGLE_ADC,
	"static":             tokenbrokerv1.GrantType_GRANT_TYPE_STATIC,
	"password":           tokenbrokerv1.GrantType_GRANT_TYPE_PASSWORD,
}

func grantWord(g tokenbrokerv1.GrantType) string {
	return strings.ToLower(enum(g.String(), "GRANT_TYPE_"))
}

// credentialFlags are the fields of a CredentialSpec as flags.
type credentialFlags struct {
	spec       tokenbrokerv1.CredentialSpec
	labels     []string
	parameters []string
	extra      string
}

// extras are what may become of scopes that nobody asked for.
var extras = map[string]tokenbrokerv1.ExtraScopes{
	"judge": tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_JUDGE,
	"allow": tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW,
}

func allowsExtra(spec *tokenbrokerv1.CredentialSpec) bool {
	return spec.GetExtraScopes() == tokenbrokerv1.ExtraScopes_EXTRA_SCOPES_ALLOW
}

// add adds those that can be changed.
func (f *credentialFlags) add(c *cli, cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.spec.OauthClient, "client", "", "name of the OAuth client")
	fl.StringArrayVar(&f.spec.Scopes, "scope", nil, "a scope; repeatable (none: the provider's default)")
	fl.StringVar(&f.spec.Subject, "subject", "", "whom tokens act for by default")
	fl.StringVar(&f.spec.Audience, "audience", "", "audience of tokens by default")
	fl.StringArrayVar(&f.labels, "label", nil, "a label, as `key=value`; repeatable")
	fl.StringVar(&f.spec.Owner, "owner", "", "whom to ask about this credential")
	fl.StringArrayVar(&f.spec.Resources, "resource", nil, "a resource indicator (RFC 8707), as an absolute URI; repeatable")
	fl.StringArrayVar(&f.parameters, "param", nil, "a further field of token requests, as `key=value`, never a secret; repeatable")
	fl.StringVar(&f.spec.Source, "source", "", "with the grant token_exchange: the `credential` whose token is exchanged")
	fl.StringVar(&f.extra, "extra-scopes", "", "scopes that the provider gives unasked: judge (by the policy, the default) or allow")
	complete(cmd, "extra-scopes", keys(extras)...)
	_ = cmd.RegisterFlagCompletionFunc("source", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return c.credentialNames(1)(cmd, nil, begun)
	})
	c.completeClient(cmd)
}

// fill finishes the spec from what the flags hold.
func (f *credentialFlags) fill() (err error) {
	empty := func(s string) bool { return s == "" }
	f.spec.Scopes, f.spec.Resources = slices.DeleteFunc(f.spec.Scopes, empty), slices.DeleteFunc(f.spec.Resources, empty)
	if f.spec.Parameters, err = parsePairs("param", f.parameters); err != nil {
		return err
	}
	if f.extra != "" {
		if f.spec.ExtraScopes, err = choose("extra-scopes", f.extra, extras); err != nil {
			return err
		}
	}
	f.spec.Labels, err = parsePairs("label", f.labels)
	return err
}

// parsePairs reads key=value pairs. An empty one says that there are none.
func parsePairs(flag string, list []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, l := range list {
		if l == "" {
			continue
		}
		k, v, ok := strings.Cut(l, "=")
		if _, twice := labels[k]; !ok || k == "" || twice {
			return nil, usagef("--%s: give key=value, each key once", flag)
		}
		labels[k] = v
	}
	return labels, nil
}

func parseTime(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usagef("%s: give a time such as %s", flag, stamp(time.Now().Add(24*time.Hour)))
	}
	return timestamppb.New(t), nil
}

// choose reads a flag with a few values; "-" is as good as "_".
func choose[T any](flag, text string, values map[string]T) (T, error) {
	v, ok := values[strings.ReplaceAll(text, "-", "_")]
	if !ok {
		return v, usagef("--%s: give one of %s", flag, strings.Join(keys(values), ", "))
	}
	return v, nil
}

// creation is "credential create".
type creation struct {
	credentialFlags
	req     tokenbrokerv1.CreateCredentialRequest
	holding holdingFlags
	grant   string
	file    string
}

func (c *cli) credentialCreate() *cobra.Command {
	cr := &creation{holding: newHolding()}
	cmd := &cobra.Command{Use: "create CREDENTIAL", Short: "Add a credential", Args: atMost("CREDENTIAL"), ValidArgsFunction: cobra.NoFileCompletions,
		Long: `Adds a credential. The broker stores it and tries it at once; what is printed is how that went, if it takes no longer than 5 s.

What the grant lives on comes from standard input, a file, or a prompt without echo on a terminal: with refresh_token a refresh token
that was obtained elsewhere, with static the token or API key, with password the password of --subject, with token_exchange and no
--source the subject token. To have somebody consent, "tokenctl connect" is the shorter way; to bring a key file, "tokenctl import".
"tokenctl provider show" says which grants suit a provider.

With -f it takes a CreateCredentialRequest in JSON or YAML instead of flags; a key that it does not know is an error.`,
		Example: `  tokenctl credential create example/reports --provider acme --client acme-jobs --grant client_credentials --scope reports.read
  tokenctl credential create example/drive --provider acme --client acme-jobs --grant refresh_token --refresh-token-file rt
  tokenctl credential create example/crm --provider generic --grant static --static-token-file key
  tokenctl credential create -f reports.yaml --validate-only`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		if err := cr.request(ctx, s, cmd, args); err != nil {
			return err
		}
		return s.make(ctx, &cr.req)
	})
	f := cmd.Flags()
	f.StringVar(&cr.spec.Provider, "provider", "", "name of a provider in the broker's configuration")
	f.StringVar(&cr.grant, "grant", "", "how tokens are obtained: "+strings.Join(keys(grants), ", "))
	cr.add(c, cmd)
	cr.holding.add(cmd)
	c.completeProvider(cmd)
	f.StringVarP(&cr.file, "filename", "f", "", "take the request from a `file`, or - for standard input")
	f.BoolVar(&cr.req.ValidateOnly, "validate-only", false, "check everything and store nothing")
	complete(cmd, "grant", keys(grants)...)
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// request makes the request of flags, or of a file.
func (cr *creation) request(ctx context.Context, s *session, cmd *cobra.Command, args []string) (err error) {
	only, need := cr.req.GetValidateOnly(), ""
	if cr.file != "" {
		if err := alone(cmd, args); err != nil {
			return err
		}
		if err := s.load(ctx, cr.file, &cr.req); err != nil {
			return err
		}
		cr.req.ValidateOnly = only || cr.req.GetValidateOnly()
	} else if err := cr.fromFlags(args); err != nil {
		return err
	} else {
		need = needs(&cr.spec)
	}
	if one, _ := cr.holding.given(); cr.file == "-" && one != nil && one.stdin {
		return usagef("standard input can't be both the request and the %s", one.words())
	}
	if err := cr.holding.times(&cr.req); err != nil {
		return err
	}
	return cr.holding.fill(ctx, s.cli, &cr.req, need)
}

// consentNext says how a credential that nobody has consented to goes on.
func (s *session) consentNext(c *tokenbrokerv1.Credential) {
	if g := c.GetSpec().GetGrantType(); consents(g) && !connectedAlready(c) {
		_, _ = fmt.Fprintf(s.errs, "a person has to consent now: %s\n", clean(strings.TrimSuffix(reconnect(c), " --reauthorize")))
	}
}

func (cr *creation) fromFlags(args []string) (err error) {
	if len(args) == 0 {
		return usagef("name the credential, or give -f")
	}
	cr.req.Credential, cr.req.Spec = args[0], &cr.spec
	if cr.spec.GrantType, err = choose("grant", cr.grant, grants); err != nil {
		return err
	}
	return cr.fill()
}

func (c *cli) credentialUpdate() *cobra.Command {
	var f credentialFlags
	var req tokenbrokerv1.UpdateCredentialRequest
	cmd := &cobra.Command{Use: "update CREDENTIAL", Short: "Change what the flags name, and nothing else", Args: takes("CREDENTIAL"), ValidArgsFunction: c.credentialNames(1),
		Long: `Changes what the flags name, and nothing else. A list is replaced as a whole: --scope a --scope b leaves those two, --scope ''
leaves none; so it is with --label, --resource and --param. The refresh token stays; "import" brings a new one.`,
		Example: `  tokenctl credential update example/reports --scope reports.read --scope reports.write
  tokenctl credential update example/reports --owner 'reports team' --etag 3`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		if err := f.fill(); err != nil {
			return err
		}
		req.Credential, req.Spec = args[0], &f.spec
		var err error
		if req.UpdateMask, err = mask(cmd, "client:oauth_client", "scope:scopes", "subject", "audience", "label:labels", "owner", "resource:resources", "param:parameters", "source", "extra-scopes:extra_scopes"); err != nil {
			return err
		}
		resp, err := call(ctx, s, s.creds.UpdateCredential, &req)
		if err != nil {
			return err
		}
		return s.stands(resp)
	})
	f.add(c, cmd)
	cmd.Flags().StringVar(&req.Etag, "etag", "", "change it only if this is still its etag")
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// mask names the fields whose flags were given. A pair is "flag:field".
func mask(cmd *cobra.Command, pairs ...string) (*fieldmaskpb.FieldMask, error) {
	var m fieldmaskpb.FieldMask
	var flags []string
	for _, p := range pairs {
		flag, field, ok := strings.Cut(p, ":")
		if !ok {
			field = flag
		}
		if flags = append(flags, "--"+flag); cmd.Flags().Changed(flag) {
			m.Paths = append(m.Paths, field)
		}
	}
	if len(m.GetPaths()) == 0 {
		return nil, usageError(fmt.Sprintf("nothing to change: give at least one of %s", strings.Join(flags, ", ")), cmd.CommandPath()+" --help")
	}
	return &m, nil
}
