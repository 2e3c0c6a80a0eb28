package grant

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

const maxClientID = 1 << 10

// Validate returns all that is wrong with a credential as far as its provider is concerned, for an operator to hear when it is
// created: joined [tokenbroker.Problem] values with the field at fault. client is the OAuth client it names, nil if there is none.
func (c *Client) Validate(cred tokenbroker.Credential, client *tokenbroker.OAuthClient) error {
	e, ok := c.endpoints[cred.Provider]
	if !ok {
		return c.unknownProvider(cred.Provider)
	}
	kind, known := kindOf(cred.Grant)
	problems := []error{
		tokenbroker.Invalid("spec.scopes", e.checkScopes(cred.Scopes)),
		tokenbroker.Invalid("spec.audience", tokenbroker.ValidateAudience(cred.Audience)),
	}
	if !known {
		problems = append(problems, invalid("spec.grantType", "grant type %q is not supported; use %s or %s",
			cred.Grant, tokenbroker.GrantClientCredentials, tokenbroker.GrantRefreshToken))
	}
	if cred.Subject != "" {
		problems = append(problems, invalid("spec.subject", "a %s grant can't name a subject", cred.Grant))
	}
	problems = append(problems, checkPair(cred, client, known && !kind.public))
	return errors.Join(problems...)
}

// checkPair judges the OAuth client as the credential's.
func checkPair(cred tokenbroker.Credential, client *tokenbroker.OAuthClient, confidential bool) error {
	const field = "spec.oauthClient"
	switch {
	case client == nil:
		return invalid(field, "OAuth client %q does not exist; create it first", cred.Client)
	case client.Provider != cred.Provider:
		return invalid(field, "OAuth client %q belongs to provider %q, not %q", client.Name, client.Provider, cred.Provider)
	case client.Auth == tokenbroker.AuthNone && confidential:
		return invalid(field, "OAuth client %q is public (auth method none), which a %s grant can't use", client.Name, cred.Grant)
	case client.Auth != tokenbroker.AuthNone && len(client.Secrets) == 0:
		return invalid(field, "OAuth client %q has no secret for %s; add one", client.Name, client.Auth)
	}
	return nil
}

// checkScopes checks scopes as they have to be written for the provider.
func (e *endpoint) checkScopes(scopes []string) error {
	if err := tokenbroker.ValidateScopes(scopes); err != nil {
		return err
	}
	sep := e.profile.ScopeSeparator
	i := slices.IndexFunc(scopes, func(s string) bool { return strings.Contains(s, sep) })
	if i >= 0 {
		return fmt.Errorf("scope %d contains %q, which separates scopes at this provider; give each scope as an item of its own", i+1, sep)
	}
	return nil
}

// ValidateClient returns all that is wrong with an OAuth client as far as its provider is concerned, like [Client.Validate]. A
// client without a secret passes: its credentials do not.
func (c *Client) ValidateClient(client tokenbroker.OAuthClient) error {
	e, ok := c.endpoints[client.Provider]
	if !ok {
		return c.unknownProvider(client.Provider)
	}
	problems := []error{checkClientID(client.ClientID)}
	if !slices.Contains(e.profile.AuthMethods, client.Auth) {
		problems = append(problems, invalid("spec.authMethod", "auth method %q is not one that provider %s takes: %v",
			client.Auth, client.Provider, e.profile.AuthMethods))
	}
	if client.Auth == tokenbroker.AuthNone && len(client.Secrets) > 0 {
		problems = append(problems, invalid("spec.authMethod", "auth method none goes with no secret; %d given", len(client.Secrets)))
	}
	for _, s := range client.Secrets {
		problems = append(problems, checkSecret(s.Secret.Reveal()))
	}
	return errors.Join(problems...)
}

func checkClientID(id string) error {
	const field = "spec.clientId"
	switch {
	case id == "":
		return invalid(field, "client id is empty")
	case len(id) > maxClientID:
		return invalid(field, "client id has %d bytes, at most %d are allowed", len(id), maxClientID)
	case !printable(id) || strings.TrimSpace(id) != id:
		return invalid(field, "client id must be printable ASCII without blanks around it (RFC 6749 appendix A.1)")
	}
	return nil
}

// checkSecret finds what a paste leaves behind. It says nothing of the value.
func checkSecret(secret string) error {
	const field = "secret"
	switch {
	case secret == "":
		return invalid(field, "client secret is empty")
	case len(secret) > tokenbroker.MaxSecretBytes:
		return invalid(field, "client secret has %d bytes, at most %d are allowed", len(secret), tokenbroker.MaxSecretBytes)
	case strings.TrimSpace(secret) != secret:
		return invalid(field, "client secret starts or ends with a blank or a line break; was it pasted with one?")
	case strings.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return invalid(field, "client secret contains a control character")
	}
	return nil
}

func (c *Client) unknownProvider(name string) error {
	return &tokenbroker.Problem{
		Err:    tokenbroker.ErrUnknownProvider,
		Field:  "spec.provider",
		Detail: fmt.Sprintf("%q is not configured; add it to the providers of the configuration file", name),
	}
}

func invalid(field, format string, args ...any) error {
	return tokenbroker.Invalid(field, fmt.Errorf(format, args...))
}
