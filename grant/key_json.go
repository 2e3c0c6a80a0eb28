package grant

import (
	"cmp"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// refusedFiles says of JSON files that Google gives out and that hold no key of one's own what they are and what to do.
var refusedFiles = map[string]string{
	"authorized_user":                  "this is a user's refresh token (authorized_user), not a key; bring it in with tokenctl import",
	"external_account":                 "this file (external_account) describes where a machine gets a token from and holds no key; use a token_exchange credential",
	"external_account_authorized_user": "this file (external_account_authorized_user) holds a person's session and no key; use a token_exchange credential",
	"impersonated_service_account":     "this file (impersonated_service_account) borrows another identity and holds no key; give the service account's own key file",
	"gdch_service_account":             "this file (gdch_service_account) is for Google Distributed Cloud, which is not supported",
}

// readKeyJSON reads a key file.
func readKeyJSON(text string) (keyFile, error) {
	f := parseObject([]byte(text))
	kind := f.text("type")
	why, refused := refusedFiles[kind]
	switch {
	case !f.whole:
		return keyFile{}, errors.New("the JSON is cut off or damaged; give the whole file")
	case f.value("keys") != nil:
		return readJWKSet(f.value("keys"))
	case f.value("kty") != nil:
		return readJWK([]byte(text))
	case kind == "service_account":
		return readServiceAccount(f)
	case refused:
		return keyFile{}, errors.New(why)
	case f.value("installed") != nil, f.value("web") != nil:
		return keyFile{}, errors.New("this file holds an OAuth client's id and secret, not a key; create an OAuth client with them")
	case f.value("boxAppSettings") != nil:
		box := f.at("boxAppSettings")
		return readEmbedded(box.text("appAuth.privateKey"), box.text("appAuth.publicKeyID"), box.text("clientID"))
	}
	key := cmp.Or(f.text("private_key"), f.text("privateKey"), f.text("key"))
	if key == "" {
		return keyFile{}, errors.New("this JSON holds no private key that the broker knows to find; give the key in PEM or as a JWK")
	}
	return readEmbedded(key, cmp.Or(f.text("private_key_id"), f.text("keyId"), f.text("key_id"), f.text("kid")),
		cmp.Or(f.text("client_id"), f.text("clientId")))
}

// readServiceAccount reads the key file of a Google service account.
func readServiceAccount(f fields) (keyFile, error) {
	email := f.text("client_email")
	switch {
	case f.text("private_key") == "":
		return keyFile{}, errors.New("the service account file has no private_key; create a JSON key for the service account and give that file")
	case !strings.Contains(email, "@"):
		return keyFile{}, errors.New("the service account file has no client_email; give the file as Google gave it out")
	}
	file, err := readEmbedded(f.text("private_key"), f.text("private_key_id"), email)
	file.account, file.tokenURI = f.scalar("client_id"), f.text("token_uri")
	if strings.Trim(file.account, "0123456789") != "" {
		file.account = ""
	}
	return file, err
}

// readEmbedded reads a key in PEM inside a file.
func readEmbedded(key, id, client string) (keyFile, error) {
	if !strings.Contains(key, "-----BEGIN ") {
		return keyFile{}, errors.New("the private key in this file is not in PEM; give the file as the provider gave it out")
	}
	file, err := readKeyPEM(key)
	if err != nil {
		return keyFile{}, fmt.Errorf("the private key in this file: %w", err)
	}
	file.keyID, file.clientID = id, client
	return file, nil
}

func readJWKSet(list json.RawMessage) (keyFile, error) {
	var keys []json.RawMessage
	if err := json.Unmarshal(list, &keys); err != nil || len(keys) != 1 {
		return keyFile{}, errors.New("a JWK set must hold exactly one key; give the one that is to be used")
	}
	return readJWK(keys[0])
}

// readJWK reads a private key by RFC 7517.
func readJWK(text []byte) (keyFile, error) {
	switch members := parseObject(text); {
	case members.text("kty") == "oct":
		return keyFile{}, errors.New("this JWK is a shared secret; add it as a client secret")
	case len(members.text("n")) > maxRSA/8*4/3+4, len(members.text("d")) > maxRSA/8*4/3+4:
		return keyFile{}, errors.New(tooLarge)
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(text); err != nil || !k.Valid() {
		return keyFile{}, errors.New("the JWK can't be read: it is damaged or of a kind other than RSA, EC (P-256, P-384, P-521) and Ed25519; export it anew")
	}
	key, ok := k.Key.(crypto.Signer)
	switch {
	case k.IsPublic() || !ok:
		return keyFile{}, errors.New("this JWK is a public key, which the provider gets; give the private one, which has a member d")
	case k.Use == "enc":
		return keyFile{}, errors.New(`this JWK is for encryption (use: "enc"); give the one for signing`)
	}
	return keyFile{key: key, algorithm: k.Algorithm, keyID: k.KeyID, chain: k.Certificates}, nil
}
