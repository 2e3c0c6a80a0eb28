package store

import (
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// Conversions between the vocabulary and the payloads. This is where secrets are revealed, and nowhere else in the package
// but where a refresh token is hashed.

func reveal(s tokenbroker.Secret) []byte {
	if s.IsZero() {
		return nil
	}
	return []byte(s.Reveal())
}

func secret(b []byte) tokenbroker.Secret { return tokenbroker.NewSecret(string(b)) }

func credentialToRecord(c tokenbroker.Credential) *credentialRecord {
	return &credentialRecord{
		version: current(), UID: c.UID, Provider: c.Provider, Client: c.Client, Grant: c.Grant, Scopes: c.Scopes,
		Subject: c.Subject, Audience: c.Audience, Resources: c.Resources, Parameters: c.Parameters, Source: c.Source,
		Labels: c.Labels, Owner: c.Owner, Disabled: c.Disabled, Extra: c.Extra,
		Created: c.Created.UTC(), Updated: c.Updated.UTC(), Version: c.Version, Generation: c.Generation,
	}
}

func (r *credentialRecord) credential(name string) tokenbroker.Credential {
	return tokenbroker.Credential{
		Name: name, UID: r.UID, Provider: r.Provider, Client: r.Client, Grant: r.Grant, Scopes: r.Scopes,
		Subject: r.Subject, Audience: r.Audience, Resources: r.Resources, Parameters: r.Parameters, Source: r.Source,
		Labels: r.Labels, Owner: r.Owner, Disabled: r.Disabled, Extra: r.Extra,
		Created: r.Created, Updated: r.Updated, Version: r.Version, Generation: r.Generation,
	}
}

func grantToRecord(g tokenbroker.Grant, tokens map[string]tokenLink) *grantRecord {
	return &grantRecord{
		version: current(), UID: g.UID, Serial: g.Serial, RefreshToken: reveal(g.RefreshToken), Previous: reveal(g.Previous),
		Holds: g.Holds, Account: g.Account, Granted: g.Granted, Cause: g.Cause,
		Rotated: g.Rotated.UTC(), Consented: g.Consented.UTC(), Exercised: g.Exercised.UTC(), RefreshEnd: g.RefreshEnd.UTC(),
		Prolonged: g.Prolonged.UTC(), State: g.State, Code: g.Code, Since: g.Since.UTC(), Strikes: g.Strikes, SecretID: g.SecretID,
		LastUse: g.LastUse.UTC(), Intent: intentToRecord(g.Intent), Revoking: revokingToRecord(g.Revoking), Tokens: tokens,
	}
}

func (r *grantRecord) grant() tokenbroker.Grant {
	return tokenbroker.Grant{
		UID: r.UID, Serial: r.Serial, RefreshToken: secret(r.RefreshToken), Previous: secret(r.Previous), Rotated: r.Rotated,
		Holds: r.Holds, Account: r.Account, Granted: r.Granted, Cause: r.Cause,
		Consented: r.Consented, Exercised: r.Exercised, RefreshEnd: r.RefreshEnd, Prolonged: r.Prolonged, State: r.State, Code: r.Code,
		Since: r.Since, Strikes: r.Strikes, SecretID: r.SecretID, LastUse: r.LastUse, Intent: r.Intent.intent(), Revoking: r.Revoking.revoking(),
	}
}

func revokingToRecord(v *tokenbroker.Revoking) *revokingRecord {
	if v == nil {
		return nil
	}
	r := &revokingRecord{Until: v.Until.UTC(), Begun: v.Begun.UTC(), Tries: v.Tries, Next: v.Next.UTC(), Code: v.Code}
	for _, d := range v.Tokens {
		r.Tokens = append(r.Tokens, doomedRecord{Kind: d.Kind, Token: reveal(d.Token)})
	}
	return r
}

func (r *revokingRecord) revoking() *tokenbroker.Revoking {
	if r == nil {
		return nil
	}
	v := &tokenbroker.Revoking{Until: r.Until, Begun: r.Begun, Tries: r.Tries, Next: r.Next, Code: r.Code}
	for _, d := range r.Tokens {
		v.Tokens = append(v.Tokens, tokenbroker.Doomed{Kind: d.Kind, Token: secret(d.Token)})
	}
	return v
}

func intentToRecord(i *tokenbroker.Intent) *intentRecord {
	if i == nil {
		return nil
	}
	return &intentRecord{
		Attempt: i.Attempt, Serial: i.Serial, TokenHash: i.TokenHash, Variant: variantRecord(i.Variant), Begun: i.Begun.UTC(), Sends: i.Sends,
	}
}

func (r *intentRecord) intent() *tokenbroker.Intent {
	if r == nil {
		return nil
	}
	return &tokenbroker.Intent{
		Attempt: r.Attempt, Serial: r.Serial, TokenHash: r.TokenHash, Variant: tokenbroker.Variant(r.Variant), Begun: r.Begun, Sends: r.Sends,
	}
}

func tokenToRecord(t tokenbroker.Token) *tokenRecord {
	return &tokenRecord{
		version: current(), AccessToken: reveal(t.AccessToken), Type: t.Type, Scopes: t.Scopes, Expiry: t.Expiry.UTC(),
		ExpiryEstimated: t.ExpiryEstimated, Obtained: t.Obtained.UTC(), Generation: t.Generation, Metadata: t.Metadata,
	}
}

func (r *tokenRecord) token() tokenbroker.Token {
	return tokenbroker.Token{
		AccessToken: secret(r.AccessToken), Type: r.Type, Scopes: r.Scopes, Expiry: r.Expiry,
		ExpiryEstimated: r.ExpiryEstimated, Obtained: r.Obtained, Generation: r.Generation, Metadata: r.Metadata,
	}
}

func clientToRecord(c tokenbroker.OAuthClient) *clientRecord {
	r := &clientRecord{
		version: current(), UID: c.UID, Provider: c.Provider, ClientID: c.ClientID, Auth: c.Auth, Account: c.Account, Labels: c.Labels,
		Created: c.Created.UTC(), Updated: c.Updated.UTC(), Version: c.Version,
	}
	for _, s := range c.Secrets {
		r.Secrets = append(r.Secrets, secretRecord{ID: s.ID, Kind: s.Kind, Secret: reveal(s.Secret), Fingerprint: s.Fingerprint, KeyID: s.KeyID,
			Algorithm: s.Algorithm, Certificate: s.Certificate, Added: s.Added.UTC(), Expiry: s.Expiry.UTC(), RotateAfter: s.RotateAfter})
	}
	return r
}

func (r *clientRecord) client(name string) tokenbroker.OAuthClient {
	c := tokenbroker.OAuthClient{
		Name: name, UID: r.UID, Provider: r.Provider, ClientID: r.ClientID, Auth: r.Auth, Account: r.Account, Labels: r.Labels,
		Created: r.Created, Updated: r.Updated, Version: r.Version,
	}
	for _, s := range r.Secrets {
		c.Secrets = append(c.Secrets, tokenbroker.ClientSecret{ID: s.ID, Kind: s.Kind, Secret: secret(s.Secret), Fingerprint: s.Fingerprint, KeyID: s.KeyID,
			Algorithm: s.Algorithm, Certificate: s.Certificate, Added: s.Added, Expiry: s.Expiry, RotateAfter: s.RotateAfter})
	}
	return c
}

func orphanToRecord(o tokenbroker.Outcome) *orphanRecord {
	r := &orphanRecord{
		version: current(), Stored: time.Now().UTC(), UID: o.UID, Attempt: o.Attempt, Serial: o.Serial, Time: o.Time.UTC(),
		Variant: variantRecord(o.Variant), RefreshToken: reveal(o.RefreshToken), RefreshEnd: o.RefreshEnd.UTC(),
		Account: o.Account, Granted: o.Granted, SecretID: o.SecretID, LastUse: o.LastUse.UTC(),
	}
	if o.Token != nil {
		r.Token = tokenToRecord(*o.Token)
	}
	return r
}

func (r *orphanRecord) outcome(credential string) tokenbroker.Outcome {
	o := tokenbroker.Outcome{
		Credential: credential, UID: r.UID, Attempt: r.Attempt, Serial: r.Serial, Time: r.Time,
		Variant: tokenbroker.Variant(r.Variant), RefreshToken: secret(r.RefreshToken), RefreshEnd: r.RefreshEnd,
		Account: r.Account, Granted: r.Granted, SecretID: r.SecretID, LastUse: r.LastUse,
	}
	if r.Token != nil {
		t := r.Token.token()
		o.Token = &t
	}
	return o
}

func (r *indexRecord) summary(name string) tokenbroker.Summary {
	return tokenbroker.Summary{
		Name: name, UID: r.UID, Provider: r.Provider, Source: r.Source, State: r.State, Disabled: r.Disabled, Expiry: r.Expiry, Exercise: r.Exercise,
	}
}
