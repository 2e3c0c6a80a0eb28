package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// holdingFlags are the ways in for what a credential lives on. Each is named as the field of the request that it fills.
type holdingFlags struct {
	secrets                []*secretFlags
	expires, secretExpires string
}

func newHolding() holdingFlags {
	return holdingFlags{secrets: []*secretFlags{{name: "refresh-token"}, {name: "static-token"}, {name: "password"}, {name: "subject-token"}}}
}

func (h *holdingFlags) add(cmd *cobra.Command) {
	for _, s := range h.secrets {
		s.add(cmd)
	}
	cmd.Flags().StringVar(&h.expires, "refresh-token-expires", "", "when the refresh token dies, as `time` in RFC 3339, if known")
	cmd.Flags().StringVar(&h.secretExpires, "secret-expires", "", "when a static token, password or subject token ends, as `time` in RFC 3339, if known")
}

// given is the one that a flag says where to find; nil = none.
func (h *holdingFlags) given() (one *secretFlags, err error) {
	for _, s := range h.secrets {
		if !s.given() {
			continue
		}
		if one != nil {
			return nil, usagef("a credential lives on one secret: give that of %s or that of %s", "--"+one.name+"-…", "--"+s.name+"-…")
		}
		one = s
	}
	return one, nil
}

func (h *holdingFlags) named(name string) *secretFlags {
	for _, s := range h.secrets {
		if s.name == name {
			return s
		}
	}
	return nil
}

// needs is the secret that a new credential is created with; "" = none.
func needs(spec *tokenbrokerv1.CredentialSpec) string {
	switch spec.GetGrantType() {
	case tokenbrokerv1.GrantType_GRANT_TYPE_REFRESH_TOKEN:
		return "refresh-token"
	case tokenbrokerv1.GrantType_GRANT_TYPE_STATIC:
		return "static-token"
	case tokenbrokerv1.GrantType_GRANT_TYPE_PASSWORD:
		return "password"
	case tokenbrokerv1.GrantType_GRANT_TYPE_TOKEN_EXCHANGE:
		if spec.GetSource() == "" {
			return "subject-token"
		}
	default:
	}
	return ""
}

// times puts the times at which the secrets end into a request.
func (h *holdingFlags) times(m proto.Message) error {
	for _, t := range []struct{ flag, text, field string }{
		{"--refresh-token-expires", h.expires, "refresh_token_expire_time"}, {"--secret-expires", h.secretExpires, "secret_expire_time"},
	} {
		end, err := parseTime(t.flag, t.text)
		if err != nil {
			return err
		}
		if end != nil {
			m.ProtoReflect().Set(field(m, t.field), protoreflect.ValueOfMessage(end.ProtoReflect()))
		}
	}
	return nil
}

// fill reads the secret and puts it into a request. need is what to ask for if no flag says; "" = nothing.
func (h *holdingFlags) fill(ctx context.Context, c *cli, m proto.Message, need string) error {
	one, err := h.given()
	if one == nil && err == nil {
		one = h.named(need)
	}
	if one == nil {
		return err
	}
	secret, err := one.read(ctx, c)
	if err != nil {
		return err
	}
	m.ProtoReflect().Set(field(m, strings.ReplaceAll(one.name, "-", "_")), protoreflect.ValueOfString(secret.Reveal()))
	return nil
}

func field(m proto.Message, name string) protoreflect.FieldDescriptor {
	return m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
}

// trying is how long to wait for the first try of a credential to end.
const trying = 5 * time.Second

// settled is a credential after its first try, if that ends soon: what is shown then is how it went. The broker goes on trying anyway.
func (s *session) settled(ctx context.Context, c *tokenbrokerv1.Credential) *tokenbrokerv1.Credential {
	st := c.GetStatus()
	if c.GetUid() == "" || consents(c.GetSpec().GetGrantType()) && !st.GetHasRefreshToken() { // only validated, or nobody has consented
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, min(trying, s.timeout))
	defer cancel()
	pause := 50 * time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for c.GetStatus().GetState() == tokenbrokerv1.CredentialState_CREDENTIAL_STATE_PENDING && c.GetStatus().GetCode() == "" {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return c
		}
		got, err := s.creds.GetCredential(ctx, &tokenbrokerv1.GetCredentialRequest{Credential: c.GetCredential()})
		if err != nil { // who may create need not be allowed to look
			return c
		}
		c = got.GetCredential()
		pause = min(2*pause, time.Second)
		timer.Reset(pause)
	}
	return c
}

func (c *cli) credentialImport() *cobra.Command {
	h := newHolding()
	cmd := &cobra.Command{Use: "import CREDENTIAL", Short: "Bring a new refresh token, static token, password or subject token for a credential", Args: takes("CREDENTIAL"), ValidArgsFunction: c.credentialNames(1),
		Long: `Stores what a credential that exists lives on from now on: a new refresh token, the way back from REAUTHORIZE, or the next static
token, password or subject token. Its name, rules and history stay, and it is tried at once. The secret comes from standard input,
a file, or a prompt without echo on a terminal. Where a person consents, "tokenctl connect --reauthorize" does it all.`,
		Example: `  tokenctl credential import example/drive                              # asks for it
  obtain-consent | tokenctl credential import example/drive --refresh-token-stdin
  tokenctl credential import example/crm --static-token-file key --secret-expires 2027-06-01T00:00:00Z`}
	cmd.RunE = c.with(func(ctx context.Context, s *session, args []string) error {
		req := &tokenbrokerv1.ImportRefreshTokenRequest{Credential: args[0]}
		if err := h.times(req); err != nil {
			return err
		}
		need, err := s.livesOn(ctx, &h, args[0])
		if err != nil {
			return err
		}
		if err := h.fill(ctx, s.cli, req, need); err != nil {
			return err
		}
		resp, err := call(ctx, s, s.creds.ImportRefreshToken, req)
		if err != nil {
			return err
		}
		resp.Credential = s.settled(ctx, resp.GetCredential())
		return s.stands(resp)
	})
	h.add(cmd)
	c.outputs(cmd, "table", "json", "yaml")
	return cmd
}

// livesOn is the secret that a credential lives on, if no flag says it. Who may not look at the credential is asked for a refresh token.
func (s *session) livesOn(ctx context.Context, h *holdingFlags, name string) (string, error) {
	if one, err := h.given(); one != nil || err != nil {
		return "", err
	}
	got, err := call(ctx, s, s.creds.GetCredential, &tokenbrokerv1.GetCredentialRequest{Credential: name})
	if f, ok := errors.AsType[*failure](err); ok && f.exit != exitDenied {
		return "", err
	}
	return or(needs(got.GetCredential().GetSpec()), "refresh-token"), nil
}
