package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// keyFile is what Google writes into a file for programs: the key of a service account, or what gcloud keeps of a user.
type keyFile struct {
	Type         string `json:"type"`
	ClientID     string `json:"client_id"`
	ClientEmail  string `json:"client_email"`   // service_account
	KeyID        string `json:"private_key_id"` // service_account
	PrivateKey   string `json:"private_key"`    // service_account; secret
	ClientSecret string `json:"client_secret"`  // authorized_user; secret
	RefreshToken string `json:"refresh_token"`  // authorized_user; secret
	Account      string `json:"account"`        // authorized_user; often empty

	whole tokenbroker.Secret
}

const (
	serviceAccount = "service_account"
	authorizedUser = "authorized_user"
)

// readKeyFile reads a key file. Nothing of it gets into an error but the names of its fields.
func readKeyFile(data tokenbroker.Secret) (*keyFile, error) {
	k := &keyFile{whole: data}
	if err := json.Unmarshal([]byte(data.Reveal()), k); err != nil {
		return nil, usagef("the file is no JSON of a key file; a key in PEM or JWK goes into an OAuth client: tokenctl client create --private-key-file")
	}
	wanted := map[string]map[string]string{
		serviceAccount: {"client_email": k.ClientEmail, "private_key": k.PrivateKey, "private_key_id": k.KeyID},
		authorizedUser: {"client_id": k.ClientID, "client_secret": k.ClientSecret, "refresh_token": k.RefreshToken},
	}[k.Type]
	if wanted == nil {
		return nil, usagef("the file has no \"type\" that can be imported: give one with %s or %s", serviceAccount, authorizedUser)
	}
	for _, name := range keys(wanted) {
		if wanted[name] == "" {
			return nil, usagef("the file has no %q, as a file of the type %s has", name, k.Type)
		}
	}
	return k, nil
}

// requests are what to make of the file.
func (k *keyFile) requests(im *importing) (*tokenbrokerv1.CreateOAuthClientRequest, *tokenbrokerv1.CreateCredentialRequest, error) {
	client := &tokenbrokerv1.CreateOAuthClientRequest{OauthClient: or(im.spec.GetOauthClient(), im.name), ValidateOnly: im.validate, Spec: &tokenbrokerv1.OAuthClientSpec{}}
	cred := &tokenbrokerv1.CreateCredentialRequest{Credential: im.name, Spec: &im.spec, ValidateOnly: im.validate}
	var grant string
	if k.Type == serviceAccount {
		im.spec.Provider = or(im.spec.GetProvider(), "google-service-account")
		client.Spec.ClientId, client.Spec.AuthMethod, client.PrivateKey = k.ClientEmail, tokenbrokerv1.AuthMethod_AUTH_METHOD_SERVICE_ACCOUNT, k.whole.Reveal()
		grant = k.accountGrant(im)
	} else {
		im.spec.Provider = or(im.spec.GetProvider(), "google")
		client.Spec.ClientId, client.Spec.AuthMethod, client.ClientSecret = k.ClientID, tokenbrokerv1.AuthMethod_AUTH_METHOD_CLIENT_SECRET_POST, k.ClientSecret
		cred.RefreshToken, grant = k.RefreshToken, "refresh_token"
	}
	client.Spec.Provider, im.spec.OauthClient = im.spec.GetProvider(), client.GetOauthClient()
	var err error
	im.spec.GrantType, err = choose("grant", or(im.grant, grant), grants)
	return client, cred, err
}

// accountGrant is what suits a service account: an audience alone is for an API that takes the signed assertion itself (AIP-4111).
func (k *keyFile) accountGrant(im *importing) string {
	if im.spec.GetAudience() != "" && len(im.spec.GetScopes()) == 0 && im.spec.GetSubject() == "" {
		return "self_signed_jwt"
	}
	return "jwt_bearer"
}

// advice says what is to be known of a file that was imported.
func (k *keyFile) advice(im *importing, client *tokenbrokerv1.OAuthClient) string {
	var b strings.Builder
	if k.Type == serviceAccount {
		fmt.Fprintf(&b, "The key is in the broker, which never gives it out, so the file may be the only copy outside. When \"tokenctl credential check %s\" accepts\n"+
			"a token, destroy the file (shred -u FILE), or put it where you keep what must outlive the broker.\n", clean(word(im.name)))
	} else {
		fmt.Fprintf(&b, "The refresh token is in the broker. Where the provider rotates refresh tokens, nobody else may use the file any more: when\n"+
			"\"tokenctl credential check %s\" accepts a token, destroy it (shred -u FILE).\n", clean(word(im.name)))
	}
	if k.Type != serviceAccount || im.spec.GetSubject() == "" {
		return b.String()
	}
	id := or(client.GetSpec().GetAccountId(), k.ClientID)
	fmt.Fprintf(&b, "\nTo act for %s, a super administrator of the domain has to allow it, once:\n\n"+
		"  in            Admin console > Security > Access and data control > API controls > Domain-wide delegation > Add new\n"+
		"  Client ID     %s\n"+
		"  OAuth scopes  %s\n\n"+
		"It can take up to 24 h to take effect; the broker goes on trying. How it stands: tokenctl credential describe %s\n",
		clean(im.spec.GetSubject()), clean(or(id, "the numeric \"client_id\" of the file")), clean(strings.Join(im.spec.GetScopes(), ",")), clean(word(im.name)))
	return b.String()
}
