package grant

import (
	"context"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

const (
	fromIDToken  = "id_token."
	fromUserinfo = "userinfo."
)

// account returns whose account a consent is about: the first of the profile's places that holds a text. "" = the provider does not say.
// The userinfo endpoint is asked once, if it comes to that; when it fails, it does not say. A text with one of the secrets in it is none.
func (e *endpoint) account(ctx context.Context, top, claims fields, token tokenbroker.Secret, secrets []string) string {
	secrets = append(slices.Clone(secrets), token.Reveal())
	var info fields
	asked := false
	for _, path := range e.profile.Account {
		from, name := top, path
		if after, ok := strings.CutPrefix(path, fromIDToken); ok {
			from, name = claims, after
		}
		if after, ok := strings.CutPrefix(path, fromUserinfo); ok {
			if !asked {
				info, asked = e.userinfo(ctx, claims.text("sub"), token), true
			}
			from, name = info, after
		}
		if name == "email" && from.scalar("email_verified") == "false" {
			continue // anybody can have written it
		}
		if s := shown(from.scalar(name)); s != "" && !carries([]string{s}, secrets) {
			return s
		}
	}
	return ""
}

// userinfo asks whose token it is. An answer about another subject than the id_token's counts for nothing (OpenID Connect Core §5.3.2).
func (e *endpoint) userinfo(ctx context.Context, subject string, token tokenbroker.Secret) fields {
	if e.profile.UserinfoEndpoint == "" {
		return newFields()
	}
	a, err := e.get(ctx, e.profile.UserinfoEndpoint, token, maxBody)
	if err != nil || a.status/100 != 2 || a.fault != "" {
		return newFields()
	}
	info := parseObject(a.body)
	sub := info.text("sub")
	if !info.whole || subject != "" && sub != "" && sub != subject {
		return newFields()
	}
	return info
}
