package sandbox

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
)

// Account is somebody who can consent.
type Account struct {
	ID       string `yaml:"id"`       // the sub of tokens; "" = Email
	Email    string `yaml:"email"`    // required: what names the account everywhere
	Name     string `yaml:"name"`     // for people
	Password string `yaml:"password"` // for the sign-in page and GrantPassword; "" = the page asks for none, and GrantPassword is refused

	DeniedScopes []string `yaml:"denied_scopes"` // what its administrator's policy forbids: admin_policy_enforced
	Outside      bool     `yaml:"outside"`       // belongs to another organisation, which no client of the issuer serves: org_internal
}

// DefaultAccount is the account of an issuer that configures none.
func DefaultAccount() Account {
	return Account{ID: "1001", Email: "user@sandbox.test", Name: "Sandbox User"}
}

func (a Account) subject() string { return cmp.Or(a.ID, a.Email) }

// Key is a public key: RSA, ECDSA or Ed25519.
type Key struct {
	ID     string // kid
	Public crypto.PublicKey
}

// ServiceAccount may use GrantJWTBearer under the rules that Google has for service accounts.
type ServiceAccount struct {
	Email    string `yaml:"email"`     // the iss of its assertions
	ClientID string `yaml:"client_id"` // what an administrator delegates to; for people
	Keys     []Key  `yaml:"keys"`      // RSA alone; see Server.AddServiceAccountKey

	Scopes    []string `yaml:"scopes"`    // that it may ask for; nil = those of the issuer
	Delegated []string `yaml:"delegated"` // scopes for which it may act as an account (sub); nil = it is not authorised at all
	Disabled  bool     `yaml:"disabled"`  // disabled_client
}

// TrustedIssuer is a foreign issuer whose JWTs GrantTokenExchange takes as subject tokens.
type TrustedIssuer struct {
	Issuer   string `yaml:"issuer"`   // the iss of its JWTs
	Audience string `yaml:"audience"` // their aud; "" = the issuer identifier of the sandbox
	Keys     []Key  `yaml:"keys"`
}

// account finds an account by e-mail address or ID, nil if there is none.
func (i *Issuer) account(name string) *Account {
	n := slices.IndexFunc(i.Accounts, func(a Account) bool { return name != "" && (a.Email == name || a.subject() == name) })
	if n < 0 {
		return nil
	}
	return &i.Accounts[n]
}

func (i *Issuer) serviceAccount(email string) *ServiceAccount {
	n := slices.IndexFunc(i.ServiceAccounts, func(a ServiceAccount) bool { return a.Email == email })
	if n < 0 {
		return nil
	}
	return &i.ServiceAccounts[n]
}

// validatePeople looks at everybody who is no client.
func (i Issuer) validatePeople() []error {
	var errs []error
	seen := map[string]bool{}
	for _, a := range i.Accounts {
		if a.Email == "" || seen[a.Email] || seen[a.subject()] {
			errs = append(errs, fmt.Errorf("account %q: no e-mail address, or one that is taken", a.Email))
		}
		seen[a.Email], seen[a.subject()] = true, true
	}
	for _, a := range i.ServiceAccounts {
		if a.Email == "" || seen[a.Email] {
			errs = append(errs, fmt.Errorf("service account %q: no e-mail address, or one that is taken", a.Email))
		}
		seen[a.Email] = true
		if err := a.validateKeys(); err != nil {
			errs = append(errs, fmt.Errorf("service account %q: %w", a.Email, err))
		}
	}
	for _, t := range i.TrustedIssuers {
		if err := validateKeys(t.Keys); err != nil || t.Issuer == "" || len(t.Keys) == 0 {
			errs = append(errs, fmt.Errorf("trusted issuer %q: needs a name and keys", t.Issuer))
		}
	}
	return errs
}

func (a ServiceAccount) validateKeys() error {
	for _, k := range a.Keys {
		if _, ok := k.Public.(*rsa.PublicKey); !ok || k.ID == "" {
			return errors.New("a key is not RSA, or has no id")
		}
	}
	return validateKeys(a.Keys)
}

func validateKeys(keys []Key) error {
	seen := map[string]bool{}
	for _, k := range keys {
		if algorithms(k.Public) == nil {
			return fmt.Errorf("key %q: not RSA, ECDSA or Ed25519", k.ID)
		}
		if seen[k.ID] {
			return fmt.Errorf("key %q: configured twice", k.ID)
		}
		seen[k.ID] = true
	}
	return nil
}
