package grant

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

// Validate returns all that is wrong with a credential as far as its provider is concerned, for an operator to hear when it is
// created: joined [tokenbroker.Problem] values with the field at fault. client is the OAuth client it names, nil if there is none.
func (c *Client) Validate(cred tokenbroker.Credential, client *tokenbroker.OAuthClient) error {
	e, ok := c.endpoints[cred.Provider]
	if !ok {
		return c.unknownProvider(cred.Provider)
	}
	kind, known := kindOf(cred.Grant)
	p := pair{at: e, cred: cred, client: client}
	problems := []error{
		tokenbroker.Invalid("spec.scopes", e.checkScopes(cred.Scopes)),
		tokenbroker.Invalid("spec.audience", tokenbroker.ValidateAudience(cred.Audience)),
		tokenbroker.Invalid("spec.subject", tokenbroker.ValidateSubject(cred.Subject)),
		tokenbroker.Invalid("spec.resources", checkResources(cred.Resources)),
		tokenbroker.Invalid("spec.parameters", checkParameters(cred.Parameters)),
		tokenbroker.Invalid("spec.grantType", e.checkGrant(cred.Grant)),
	}
	switch {
	case cred.Subject == "" || kind.subjects:
	case cred.Grant == tokenbroker.GrantSelfSignedJWT: // which says more about it
	default:
		problems = append(problems, invalid("spec.subject", "a %s grant can't name a subject", cred.Grant))
	}
	problems = append(problems, p.checkClient(known && !kind.public))
	if kind.check != nil && e.profile.Knows(cred.Grant) {
		problems = append(problems, kind.check(p)...)
	}
	return errors.Join(problems...)
}

// checkGrant says whether the provider knows a grant, and if not which it does.
func (e *endpoint) checkGrant(t tokenbroker.GrantType) error {
	switch _, known := kindOf(t); {
	case known && e.profile.Knows(t):
		return nil
	case known && t == tokenbroker.GrantPassword:
		return fmt.Errorf("grant type password hands the user's password around, which RFC 9700 §2.4 forbids; it is for providers that have nothing else: "+
			"use %s, or name it in grants of the provider's profile", tokenbroker.GrantAuthorizationCode)
	}
	offered := slices.DeleteFunc(slices.Clone(grantTypes()), func(g tokenbroker.GrantType) bool { return !e.profile.Knows(g) })
	return fmt.Errorf("grant type %q is not one of provider %s; use one of %v", t, e.name, offered)
}

// checkClient judges the OAuth client as the credential's.
func (p pair) checkClient(confidential bool) error {
	const field = "spec.oauthClient"
	client, cred := p.client, p.cred
	switch {
	case cred.Grant.Clientless() && cred.Client == "" && client == nil:
		return nil
	case cred.Grant.Clientless():
		return invalid(field, "a %s grant has no OAuth client; leave it out", cred.Grant)
	case client == nil:
		return invalid(field, "OAuth client %q does not exist; create it first", cred.Client)
	case client.Provider != cred.Provider:
		return invalid(field, "OAuth client %q belongs to provider %q, not %q", client.Name, client.Provider, cred.Provider)
	case client.Auth.Public() && confidential:
		return invalid(field, "OAuth client %q is public (auth method none), which a %s grant can't use", client.Name, cred.Grant)
	case client.Auth == tokenbroker.AuthServiceAccount && cred.Grant != tokenbroker.GrantJWTBearer && cred.Grant != tokenbroker.GrantSelfSignedJWT:
		return invalid(field, "OAuth client %q is a service account, which signs the assertions of %s and %s grants and has nothing to show in a %s grant",
			client.Name, tokenbroker.GrantJWTBearer, tokenbroker.GrantSelfSignedJWT, cred.Grant)
	case client.Auth.Public():
		return nil
	case !slices.ContainsFunc(client.Secrets, func(s tokenbroker.ClientSecret) bool { return fits(client.Auth, kindOfSecret(s)) }):
		return invalid(field, "OAuth client %q has no %s for %s; add one", client.Name, client.Auth.Kind(), client.Auth)
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
