package grant

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tokenbroker/tokenbroker"
)

const (
	metadataPath   = "/computeMetadata/v1/instance/service-accounts/default/token"
	metadataFlavor = "Metadata-Flavor" // a server that does not say "Google" in it is another one
)

// googleADC gets tokens by the credentials of the machine (AIP-4110): a key file, a user's file, or the metadata server. They are read
// for each request, and nothing of them is kept.
func googleADC() grantKind {
	return grantKind{public: true, mint: mintADC, check: checkADC}
}

func mintADC(ctx context.Context, c *Client, q *query, r tokenbroker.ExchangeRequest) (tokenbroker.ExchangeReply, error) {
	text, failure := c.ambient.read()
	switch {
	case failure != nil:
		return tokenbroker.ExchangeReply{}, failure
	case text == "":
		return c.askMetadata(ctx, q)
	}
	q.form = url.Values{}
	switch f := parseObject([]byte(text)); f.text("type") {
	case "service_account":
		failure = q.asServiceAccount(r, text)
	case "authorized_user":
		failure = q.asUser(f)
	case "external_account", "external_account_authorized_user":
		failure = refuse("ambient_external_account")
	case "impersonated_service_account":
		failure = refuse("ambient_impersonation")
	default:
		failure = refuse("ambient_file_unreadable")
	}
	if failure != nil {
		return tokenbroker.ExchangeReply{}, failure
	}
	raw, err := c.ask(ctx, &q.call)
	if err != nil {
		return tokenbroker.ExchangeReply{Sent: raw.sent}, err
	}
	out, err := q.conclude(raw)
	out.RefreshToken, out.RefreshEnd = tokenbroker.Secret{}, time.Time{} // the file's is not ours to keep, and Google does not change it
	return out, err
}

// read returns the credentials file, "" if there is none.
func (a Ambient) read() (string, *tokenbroker.Failure) {
	for _, name := range a.Files {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			if a.Named {
				return "", refuse("ambient_file_missing")
			}
			continue
		}
		if err != nil {
			return "", refuse("ambient_file_unreadable")
		}
		text, err := io.ReadAll(io.LimitReader(f, maxKeyText+1))
		_ = f.Close()
		if err != nil || len(text) == 0 || len(text) > maxKeyText {
			return "", refuse("ambient_file_unreadable")
		}
		return string(text), nil
	}
	return "", nil
}

// asServiceAccount asks as the service account of a key file.
func (q *query) asServiceAccount(r tokenbroker.ExchangeRequest, text string) *tokenbroker.Failure {
	file, err := readKey(text)
	if err != nil {
		return refuse("ambient_file_unreadable")
	}
	if r.Secret, err = file.secret(); err != nil {
		return refuse("ambient_file_unreadable")
	}
	r.Client = tokenbroker.OAuthClient{ClientID: file.clientID, Account: file.account, Auth: tokenbroker.AuthServiceAccount}
	q.grant = jwtBearer()
	return q.askGrant(r)
}

// asUser asks as the user who logged in on this machine. That the refresh token is refused is no matter of a consent here.
func (q *query) asUser(f fields) *tokenbroker.Failure {
	secret, refresh := f.text("client_secret"), f.text("refresh_token")
	if secret == "" || refresh == "" || f.text("client_id") == "" {
		return refuse("ambient_file_unreadable")
	}
	q.form = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "client_id": {f.text("client_id")}, "client_secret": {secret}}
	q.secrets = append(q.secrets, secret, refresh)
	if q.narrower {
		q.askScopes()
	}
	return nil
}

// askMetadata asks the metadata server for a token of the machine's service account.
func (c *Client) askMetadata(ctx context.Context, q *query) (tokenbroker.ExchangeReply, error) {
	if c.metadata == nil {
		return tokenbroker.ExchangeReply{}, refuse("no_ambient_credentials")
	}
	at := *q.at
	at.shared, at.single = c.metadata.transport, c.metadata.transport
	q.call = at.newCall("http://" + c.metadata.to + metadataPath)
	q.method = http.MethodGet
	q.header.Set(metadataFlavor, "Google")
	if len(q.asked.Scopes) > 0 {
		q.form = url.Values{"scopes": {strings.Join(q.asked.Scopes, ",")}}
	}
	raw, err := c.ask(ctx, &q.call)
	out := tokenbroker.ExchangeReply{Sent: raw.sent}
	switch {
	case err != nil:
		return out, err
	case raw.header.Get(metadataFlavor) != "Google":
		return out, q.fault(raw, tokenbroker.ClassConfiguration, "not_a_metadata_server")
	case raw.status == http.StatusNotFound:
		return out, q.fault(raw, tokenbroker.ClassConfiguration, "no_service_account")
	}
	return q.conclude(raw)
}

func checkADC(p pair) (problems []error) {
	if !p.at.ofGoogle() && !slices.Contains(p.at.profile.Grants, tokenbroker.GrantGoogleADC) {
		problems = append(problems, invalid("spec.grantType", "google_adc uses this machine's Google credentials; provider %s is not Google", p.at.name))
	}
	return append(problems, tokenbroker.Invalid("spec.scopes", checkGoogleScopes(p.cred.Scopes)))
}
