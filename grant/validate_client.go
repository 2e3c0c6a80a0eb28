package grant

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/tokenbroker/tokenbroker"
)

const maxClientID = 1 << 10

// ValidateClient returns all that is wrong with an OAuth client as far as its provider is concerned, like [Client.Validate]. A
// client without a secret passes: its credentials do not.
func (c *Client) ValidateClient(client tokenbroker.OAuthClient) error {
	e, ok := c.endpoints[client.Provider]
	if !ok {
		return c.unknownProvider(client.Provider)
	}
	const field = "spec.authMethod"
	problems := []error{checkClientID(client.ClientID)}
	if !slices.Contains(e.profile.AuthMethods, client.Auth) {
		problems = append(problems, invalid(field, "auth method %q is not one that provider %s takes: %v",
			client.Auth, client.Provider, e.profile.AuthMethods))
	}
	if client.Auth.Public() && len(client.Secrets) > 0 {
		problems = append(problems, invalid(field, "auth method none goes with no secret; %d given", len(client.Secrets)))
	}
	if _, failure := e.audience(e.profile.AssertionAudience); failure != nil &&
		(client.Auth == tokenbroker.AuthPrivateKeyJWT || client.Auth == tokenbroker.AuthClientSecretJWT) {
		problems = append(problems, invalid(field, "%s needs the provider's issuer; set issuer in its profile", client.Auth))
	}
	for _, s := range client.Secrets {
		problems = append(problems, e.checkSecret(client.Auth, s))
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

// checkSecret judges one secret, key or certificate of a client. It says nothing of the value.
func (e *endpoint) checkSecret(method tokenbroker.AuthMethod, s tokenbroker.ClientSecret) error {
	kind := kindOfSecret(s)
	switch {
	case kind == tokenbroker.KindSecret && method.Kind() == kind:
		return checkText(method, s.Secret.Reveal())
	case kind == tokenbroker.KindSecret && method.Kind() == "":
		return checkText(method, s.Secret.Reveal()) // ValidateClient says what is wrong with the method
	case kind == tokenbroker.KindSecret:
		return invalid("secret", "%s signs with a private key, not with a client secret; add the key, in PEM, as a JWK or as the provider's key file", method)
	}
	if _, err := privateKey(s.Secret); err != nil {
		return invalid("privateKey", "the key can't be read; add it anew")
	}
	signsGrant := method.Kind() == tokenbroker.KindSecret && e.profile.Knows(tokenbroker.GrantJWTBearer) // beside a secret that is shown, as at Box
	switch {
	case method == tokenbroker.AuthTLSClientAuth && kind == tokenbroker.KindKey:
		return invalid("certificate", "%s shows a certificate; add it together with its key", method)
	case !fits(method, kind) && !signsGrant:
		return invalid("secret", "%s needs a client secret, not a key; add the secret, or make the client one for %s", method, tokenbroker.AuthPrivateKeyJWT)
	}
	return nil
}

// checkText finds what a paste leaves behind in a client secret.
func checkText(method tokenbroker.AuthMethod, secret string) error {
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
	case method == tokenbroker.AuthClientSecretJWT && len(secret) < minShared:
		return invalid(field, "client secret has %d bytes; %s signs by HS256, which needs %d (RFC 7518 §3.2): have the provider make a longer one, or use %s",
			len(secret), method, minShared, tokenbroker.AuthClientSecretPost)
	}
	return nil
}

// CheckTokenURI judges the token endpoint that a key file names, against the provider that the key is added for: a file must not say where
// assertions go. Requests are sent to the profile's endpoint all the same.
func (c *Client) CheckTokenURI(provider, uri string) error {
	e, ok := c.endpoints[provider]
	if !ok {
		return c.unknownProvider(provider)
	}
	if uri == "" {
		return nil
	}
	hosts := e.hosts()
	u, err := url.Parse(uri)
	if err != nil || u.Hostname() == "" || !slices.Contains(hosts, strings.ToLower(u.Hostname())) {
		return invalid("privateKey", "the token_uri of this key file is at another host than provider %s (%s): it is a key for another provider, or the file was altered",
			provider, strings.Join(hosts, ", "))
	}
	return nil
}

// hosts are those that the provider's endpoints are at, and those that Google's files name besides.
func (e *endpoint) hosts() (list []string) {
	if e.ofGoogle() {
		list = append(list, googleHost, "accounts.google.com", "www.googleapis.com")
	}
	for _, text := range []string{e.profile.TokenEndpoint, e.profile.RefreshEndpoint, e.profile.AuthorizationEndpoint} {
		if u, err := url.Parse(text); err == nil && u.Hostname() != "" {
			list = append(list, strings.ToLower(u.Hostname()))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
