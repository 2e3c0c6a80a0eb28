package broker

import (
	"context"
	"errors"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

// checkNew judges a credential that is to be created, and says what is allowed but should be known.
func (b *Broker) checkNew(ctx context.Context, n NewCredential) (warnings []string, err error) {
	c := n.Credential
	errs := []error{tokenbroker.Invalid("credential", tokenbroker.ValidateName(c.Name)), checkSpec(c)}
	errs = append(errs, checkHeld(n))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	client, err := b.checkWithClient(ctx, c)
	if err != nil {
		return nil, err
	}
	return b.warningsOf(n, client), nil
}

// warningsOf says what is allowed of a new credential but should be known.
func (b *Broker) warningsOf(n NewCredential, client *tokenbroker.OAuthClient) (list []string) {
	c := n.Credential
	traits := b.traits(c.Provider)
	if client != nil && client.Auth.Public() && c.Grant.Refreshes() && !traits.Rotates {
		list = append(list, "the OAuth client is public and the provider does not rotate refresh tokens: whoever gets hold of this one can use it for as long as it lives (RFC 9700 §2.2.2)")
	}
	if c.Grant == tokenbroker.GrantPassword {
		list = append(list, "the password grant gives the broker the account's password, and RFC 9700 §2.4 forbids it where there is another way")
	}
	if c.Grant == tokenbroker.GrantStatic && n.RefreshEnd.IsZero() {
		list = append(list, "no expiry was given for the token: the broker can't warn before it ends")
	}
	return append(list, b.cfg.Judge.Advise(c, client)...)
}

// checkHeld judges what a new credential is to live on. A consent may bring it later.
func checkHeld(n NewCredential) error {
	grant, keeps := n.Credential.Grant, n.Credential.Grant.Keeps()
	switch {
	case len(n.RefreshToken.Reveal()) > tokenbroker.MaxSecretBytes:
		return tokenbroker.Invalid(fieldOf(n.Holds), errors.New("is too long"))
	case !n.RefreshToken.IsZero() && n.Holds != keeps:
		return tokenbroker.Invalid(fieldOf(n.Holds), errors.New("the grant "+string(grant)+" has none"))
	case !n.RefreshToken.IsZero() && n.Credential.Source != "":
		return tokenbroker.Invalid(fieldOf(n.Holds), errors.New("can't be given together with spec.source"))
	case !n.RefreshToken.IsZero() && n.Holds != tokenbroker.HoldsRefreshToken && !n.RefreshEnd.IsZero() && !n.RefreshEnd.After(time.Now()):
		return tokenbroker.Invalid("secretExpireTime", errors.New("has passed"))
	case n.RefreshToken.IsZero() && keeps != tokenbroker.HoldsNothing && !grant.Consents() && n.Credential.Source == "":
		return tokenbroker.Invalid(fieldOf(keeps), errors.New("is required for grant "+string(grant)))
	}
	return nil
}

func checkSpec(c tokenbroker.Credential) error {
	return errors.Join(
		tokenbroker.Invalid("spec.scopes", tokenbroker.ValidateScopes(c.Scopes)),
		tokenbroker.Invalid("spec.subject", tokenbroker.ValidateSubject(c.Subject)),
		tokenbroker.Invalid("spec.audience", tokenbroker.ValidateAudience(c.Audience)),
		tokenbroker.Invalid("spec.labels", tokenbroker.ValidateLabels(c.Labels)),
		tokenbroker.Invalid("spec.owner", tokenbroker.ValidateLabels(map[string]string{"owner": c.Owner})))
}

func (b *Broker) checkWithClient(ctx context.Context, c tokenbroker.Credential) (*tokenbroker.OAuthClient, error) {
	if _, ok := b.cfg.Traits(c.Provider); !ok {
		return nil, &tokenbroker.Problem{Err: tokenbroker.ErrUnknownProvider, Field: "spec.provider", Detail: "add it to the configuration file, or correct the name"}
	}
	if err := b.checkSource(ctx, c); err != nil {
		return nil, err
	}
	switch {
	case c.Grant.Clientless() && c.Client != "":
		return nil, tokenbroker.Invalid("spec.oauthClient", errors.New("the grant "+string(c.Grant)+" has none; leave it out"))
	case c.Grant.Clientless():
		return nil, b.cfg.Judge.Validate(c, nil)
	}
	if err := tokenbroker.ValidateName(c.Client); err != nil {
		return nil, tokenbroker.Invalid("spec.oauthClient", err)
	}
	client, err := b.cfg.Store.Client(ctx, c.Client)
	if err != nil {
		return nil, err
	}
	return &client, b.cfg.Judge.Validate(c, &client)
}

// checkFeeding keeps a credential from losing what it lives on by an edit: its source goes with no import in its place.
func checkFeeding(old, c tokenbroker.Credential) error {
	if (old.Source == "") != (c.Source == "") {
		return tokenbroker.Invalid("spec.source", errors.New("can be replaced, not added or taken away; create another credential"))
	}
	return nil
}
