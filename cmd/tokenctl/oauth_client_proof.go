package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// proofFlags are the ways in for what an OAuth client authenticates with: a secret, or a private key.
type proofFlags struct {
	secret, key         secretFlags
	certificate, keyID  string
	expires, replaceDue string
}

func newProof() proofFlags {
	return proofFlags{secret: secretFlags{name: "secret"}, key: secretFlags{name: "private-key"}}
}

func (p *proofFlags) add(cmd *cobra.Command) {
	p.secret.add(cmd)
	p.key.add(cmd)
	f := cmd.Flags()
	f.StringVar(&p.certificate, "certificate-file", "", "`file` with the certificate chain of the private key in PEM, leaf first, for tls_client_auth")
	f.StringVar(&p.keyID, "key-id", "", "the kid of the private key, if it does not say so itself")
	f.StringVar(&p.expires, "expires", "", "when the secret or key ends, as `time` in RFC 3339, if known")
	f.StringVar(&p.replaceDue, "rotate-after", "", "when it is to be replaced by your own rule, as a `duration` from today such as 90d or 2160h")
}

func (p *proofFlags) stdin() bool { return p.secret.stdin || p.key.stdin }

// keyed reports whether an OAuth client has a key in place of a secret.
func keyed(m tokenbrokerv1.AuthMethod) bool {
	switch m {
	case tokenbrokerv1.AuthMethod_AUTH_METHOD_PRIVATE_KEY_JWT, tokenbrokerv1.AuthMethod_AUTH_METHOD_TLS_CLIENT_AUTH, tokenbrokerv1.AuthMethod_AUTH_METHOD_SERVICE_ACCOUNT:
		return true
	default:
		return false
	}
}

// fill puts the secret or the key into a request. needed says that there has to be one, key that it is a key.
func (p *proofFlags) fill(ctx context.Context, c *cli, m proto.Message, needed, key bool) error {
	if err := p.times(m); err != nil {
		return err
	}
	set := func(name, value string) { m.ProtoReflect().Set(field(m, name), protoreflect.ValueOfString(value)) }
	if p.keyID != "" {
		set("key_id", p.keyID)
	}
	if p.certificate != "" {
		chain, err := readFile("certificate-file", p.certificate)
		if err != nil {
			return err
		}
		set("certificate", string(chain))
	}
	one, name := &p.secret, "client_secret"
	switch {
	case p.secret.given() && p.key.given():
		return usagef("give a secret or a private key, not both: each can be added by itself")
	case p.key.given():
		one, name = &p.key, "private_key"
	case p.secret.given():
	case !needed:
		return nil
	case key: // a prompt takes one line, and a key has many
		return usagef("the private key is missing: give --private-key-file or --private-key-stdin")
	}
	secret, err := one.read(ctx, c)
	if err != nil {
		return err
	}
	set(name, secret.Reveal())
	return nil
}

func (p *proofFlags) times(m proto.Message) error {
	end, err := parseTime("--expires", p.expires)
	if err != nil {
		return err
	}
	if end != nil {
		m.ProtoReflect().Set(field(m, "secret_expire_time"), protoreflect.ValueOfMessage(end.ProtoReflect()))
	}
	if p.replaceDue == "" {
		return nil
	}
	after, err := parseLong(p.replaceDue)
	if err != nil {
		return err
	}
	m.ProtoReflect().Set(field(m, "rotate_after"), protoreflect.ValueOfMessage(durationpb.New(after).ProtoReflect()))
	return nil
}

// parseLong reads a duration that may be in days.
func parseLong(text string) (time.Duration, error) {
	const day, most = 24 * time.Hour, 3650
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= most {
			return time.Duration(n) * day, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	return 0, usagef("--rotate-after: give a duration such as 90d or 2160h")
}
