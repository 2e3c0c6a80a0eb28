package conformance_test

import (
	"slices"
	"testing"
)

// rowOfTable is one thing that authorization servers were seen to do.
type rowOfTable struct{ id, what string }

// table is all that there has to be a fixture for. 1.x are the classes of failures, whoever sends them, 2.x is what single providers do, 3.x what a widespread client library was measured
// to make of odd replies, google.x the errors that Google documents for service accounts.
var table = []rowOfTable{
	{"1.dead", "the grant is refused: a person has to consent, and what is left is served"},
	{"1.configuration", "what was configured is refused: nobody has to consent, and a bad secret is no dead grant"},
	{"1.throttled", "too many requests, however that is said: Retry-After as seconds or date, an epoch, 429 with a page"},
	{"1.transient", "certainly not processed: the refresh token is as good as before"},
	{"1.ambiguous", "perhaps processed: codes of trouble whatever the status"},
	{"1.clock", "a token that is over on arrival"},
	{"2.1", "Google: the refresh token stays, and dies of six months' disuse or of a password change"},
	{"2.2", "Google: HTML in a 502, internal_failure"},
	{"2.3", "Microsoft Entra: a new refresh token each time and the old one lives; 429 in plain text; AADSTS50196"},
	{"2.4", "GitHub App: form-encoded replies, errors with status 200, the old access token dies at once"},
	{"2.5", "Slack: ok false with status 200, tokens nested, scopes with commas"},
	{"2.6", "Salesforce: no expires_in, instance_url, a transient invalid_grant, rotation without grace"},
	{"2.7", "Okta: half a minute's leeway, E0000047 with X-Rate-Limit-Reset"},
	{"2.8", "Auth0: only the previous refresh token is forgiven; 500 for a rate limit"},
	{"2.9", "Atlassian: strict rotation with 10 minutes' leeway, errors are 403"},
	{"2.10", "Xero: the old refresh token may be replayed for 30 minutes"},
	{"2.11", "QuickBooks: x_refresh_token_expires_in, the refresh token may be the same or a new one"},
	{"2.12", "HubSpot: BAD_REFRESH_TOKEN, BAD_HUB, a limit per second"},
	{"2.13", "Zoho: Access Denied with status 200, 15 live tokens, api_domain"},
	{"2.14", "PayPal: expires_in as text, 429 without error"},
	{"2.15", "Zoom: account_credentials, minting voids the token before"},
	{"2.16", "Spotify: rotated until some day, not since"},
	{"2.17", "LinkedIn: the refresh token's remainder shrinks with each refresh"},
	{"2.18", "Airtable: a refresh ends the access token before"},
	{"2.23", "GitLab: the losers of parallel refreshes get invalid_grant"},
	{"2.24", "Cognito: the refresh token is left out of replies, optional rotation with grace"},
	{"2.25", "GitHub App installation: expires_at as RFC 3339"},
	{"2.26 float", "a life with a fraction"},
	{"2.26 empty", "a life that is an empty text"},
	{"2.26 negative", "a life below zero"},
	{"2.26 huge", "a life of centuries"},
	{"2.26 BOM", "a byte order mark"},
	{"2.26 trailing", "bytes after the JSON"},
	{"2.26 type", "JSON under another content type"},
	{"2.26 204", "no content"},
	{"2.26 gzip", "a packed body that was not asked for"},
	{"2.26 large", "a body over a megabyte"},
	{"2.26 redirect", "a redirect to another host"},
	{"2.26 drip", "a body that drips"},
	{"3.1", "a 503 must not make the same refresh token leave twice"},
	{"3.2", "307, 308 and 302 to another host must not carry the refresh token there"},
	{"3.3", "expires_in as text, with a fraction, empty: a rotation that worked must not be thrown away"},
	{"3.4", "expires_in absent, null, 0, below zero, huge"},
	{"3.5", "JSON as text/plain, as a form, as HTML or without a type"},
	{"3.6", "status 200 with an error"},
	{"3.7", "nested tokens, an error object, HTML, BOM, trailing bytes, all with status 200"},
	{"3.8", "an error object or an errors array with status 400: no body may reach a log"},
	{"3.9", "a connection that dies after the request was sent: it was one request"},
	{"3.10", "a caller who gives up takes nobody else's exchange along"},
	{"3.11", "a reply without refresh token: the old one stays"},
	{"3.12", "JWT bearer: expires_in as text, a 400, an empty object, an error with status 200, a short deadline"},
	{"google.1", "unauthorized_client: unauthorized client or scope in request"},
	{"google.2", "unauthorized_client: not by this method, or for none of the scopes"},
	{"google.3", "access_denied: whatever it says"},
	{"google.4", "admin_policy_enforced"},
	{"google.5", "invalid_client"},
	{"google.6", "invalid_grant: not a valid e-mail"},
	{"google.7", "invalid_grant: not within a reasonable timeframe"},
	{"google.8", "invalid_grant: invalid JWT signature"},
	{"google.9", "invalid_scope"},
	{"google.10", "disabled_client"},
	{"google.11", "org_internal"},
}

func TestEveryRowOfTheTableHasAFixture(t *testing.T) {
	fixtures := load(t)
	for _, row := range table {
		if !slices.ContainsFunc(fixtures, func(f fixture) bool { return slices.Contains(f.Rows, row.id) }) {
			t.Errorf("row %s has no fixture: %s", row.id, row.what)
		}
	}
}
