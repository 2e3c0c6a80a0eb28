package sandbox

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"time"
)

var issuerPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// validate reports everything that is wrong at once.
func (c Config) validate() error {
	var errs []error
	if len(c.Issuers) == 0 {
		errs = append(errs, errors.New("no issuer: configure at least one"))
	}
	if c.JournalSize < 0 {
		errs = append(errs, fmt.Errorf("journal size %d is negative", c.JournalSize))
	}
	seen := map[string]bool{}
	for _, iss := range c.Issuers {
		if seen[iss.Name] {
			errs = append(errs, fmt.Errorf("issuer %q: configured twice", iss.Name))
		}
		seen[iss.Name] = true
		if err := iss.validate(); err != nil {
			errs = append(errs, fmt.Errorf("issuer %q: %w", iss.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (i Issuer) validate() error {
	var errs []error
	check := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(!issuerPattern.MatchString(i.Name), "name must match %s", issuerPattern)
	check(i.AccessLife < time.Second || i.AccessLife%time.Second != 0, "access life %s must be whole seconds", i.AccessLife)
	check(i.RefreshLife < 0, "refresh life %s is negative", i.RefreshLife)
	check(!slices.Contains([]Rotation{RotateStrict, RotateGrace, RotateNone}, i.Rotation), "unknown rotation %q", i.Rotation)
	check((i.Rotation == RotateGrace) != (i.Grace > 0), "grace %s with rotation %q: give one with the other", i.Grace, i.Rotation)
	check(!wellFormed(i.ScopesSupported), "a supported scope is not a scope-token of RFC 6749 §3.3")
	check(min(i.CodeLife, i.DeviceLife, i.DeviceInterval, i.Leeway) < 0, "a life, interval or leeway is negative")
	check(i.DeviceLife%time.Second != 0 || i.DeviceInterval%time.Second != 0, "device life and interval must be whole seconds")
	check(!slices.Contains([]AssertionAudience{AudienceToken, AudienceIssuer, AudienceEither}, i.ClientAudience), "unknown client audience %q", i.ClientAudience)
	check(i.URL != "" && !absolute(i.URL), "URL %q is not absolute, or has a query or fragment", i.URL)
	check(i.AutoApprove != "" && i.account(i.AutoApprove) == nil, "auto-approve by %q: no such account", i.AutoApprove)
	errs = append(errs, i.validatePeople()...)
	seen := map[string]bool{}
	for _, c := range i.Clients {
		check(seen[c.ID], "client %q: configured twice", c.ID)
		seen[c.ID] = true
		if err := c.validate(i); err != nil {
			errs = append(errs, fmt.Errorf("client %q: %w", c.ID, err))
		}
	}
	return errors.Join(errs...)
}

// validate reports what is wrong with a client of i.
func (c Client) validate(i Issuer) error {
	if c.ID == "" {
		return errors.New("id is empty")
	}
	for _, err := range []error{c.validateSecrets(), c.validateKeys(), c.validateGrants(), validateRedirects(c.RedirectURIs)} {
		if err != nil {
			return err
		}
	}
	if !wellFormed(c.Scopes) || !i.supports(c.Scopes) {
		return errors.New("a scope is malformed or not supported by the issuer")
	}
	if c.PKCEOptional && c.Auth == AuthNone {
		return errors.New("a public client can't do without PKCE")
	}
	return nil
}

func (c Client) validateSecrets() error {
	switch c.Auth {
	case AuthBasic, AuthPost, AuthSecretJWT:
		if len(c.Secrets) == 0 || slices.Contains(c.Secrets, "") {
			return errors.New("needs at least one secret, and none that is empty")
		}
		return nil
	case AuthNone, AuthPrivateKeyJWT, AuthTLS, AuthSelfSignedTLS:
		if len(c.Secrets) > 0 {
			return fmt.Errorf("a public client has no secret, nor has one of %q", c.Auth)
		}
		return nil
	}
	return fmt.Errorf("unknown auth method %q", c.Auth)
}

func (c Client) validateKeys() error {
	switch {
	case c.Auth == AuthPrivateKeyJWT && len(c.Keys) == 0:
		return errors.New("private_key_jwt needs keys")
	case (c.Auth == AuthTLS) != (c.TLSSubject != ""):
		return errors.New("tls_client_auth and a TLS subject go together")
	case (c.Auth == AuthSelfSignedTLS) != (c.TLSThumbprint != ""):
		return errors.New("self_signed_tls_client_auth and a TLS thumbprint go together")
	}
	return validateKeys(c.Keys)
}

func (c Client) validateGrants() error {
	for _, g := range c.Grants {
		rule, ok := grants()[g]
		if !ok || rule.confidential && c.Auth == AuthNone {
			return fmt.Errorf("grant %q is unknown, or not for a public client", g)
		}
	}
	return nil
}

func (i *Issuer) supports(scopes []string) bool {
	return len(i.ScopesSupported) == 0 || subset(scopes, i.ScopesSupported)
}

// subset reports whether every scope of a is in b.
func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

// validateRedirects refuses what could never be compared (RFC 6749 §3.1.2).
func validateRedirects(uris []string) error {
	for _, u := range uris {
		if p, err := url.Parse(u); err != nil || !p.IsAbs() || p.Fragment != "" {
			return fmt.Errorf("redirect URI %q is not absolute, or has a fragment", u)
		}
	}
	return nil
}

func absolute(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.RawQuery == "" && u.Fragment == ""
}
