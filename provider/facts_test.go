package provider_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/provider"
)

const days = 24 * time.Hour

// TestProvidersAreAsTheirVendorsSay has one fact of a vendor's documentation in each row.
func TestProvidersAreAsTheirVendorsSay(t *testing.T) {
	for _, tt := range []struct {
		fact, profile string
		holds         func(p provider.Profile, is tokenbroker.Traits) bool
	}{
		{"Google keeps the refresh token and shows it only with a consent that is shown", "google", func(p provider.Profile, is tokenbroker.Traits) bool {
			return !is.Rotates && is.IdleLife == 180*days && p.AuthorizationParams["prompt"] == "consent" && p.AuthorizationParams["access_type"] == "offline"
		}},
		{"Google's assertions are for its token endpoint, for an hour, with the scopes inside", "google-service-account", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return p.GrantAudience == "https://oauth2.googleapis.com/token" && time.Duration(*p.AssertionLife) == time.Hour && *p.ScopeInAssertion
		}},
		{"Google's STS wants no client authentication", "google-sts", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return *p.ExchangeUnauthenticated && strings.HasSuffix(p.SubjectTokenType, ":jwt")
		}},
		{"Entra brings a new refresh token each time and leaves the old one alive", "entra", func(_ provider.Profile, is tokenbroker.Traits) bool {
			return is.Rotates && is.Grace >= time.Hour && is.IdleLife == 90*days
		}},
		{"Entra's tenant is a part with a default", "entra", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return strings.Contains(p.TokenEndpoint, "/organizations/")
		}},
		{"a refresh at a GitHub App ends the access token before it", "github-app", func(p provider.Profile, is tokenbroker.Traits) bool {
			return is.Rotates && is.KillsOld && is.Grace == 0 && p.Accept == "application/json"
		}},
		{"a GitHub OAuth app's token neither expires nor refreshes", "github-oauth-app", func(p provider.Profile, is tokenbroker.Traits) bool {
			return !slices.Contains(p.Grants, tokenbroker.GrantRefreshToken) && !is.KillsOld && is.DefaultLife == 365*days && p.ScopeSeparator == ","
		}},
		{"Slack says no with ok: false and separates scopes with commas", "slack", func(p provider.Profile, is tokenbroker.Traits) bool {
			return p.OKField == "ok" && p.ScopeSeparator == "," && p.TokenPath == "" && is.Rotates && p.LoopbackRedirect == "none"
		}},
		{"Slack nests the user's token and asks for its scopes under another name", "slack-user", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return p.TokenPath == "authed_user" && p.ScopeParameter == "user_scope" && p.OKField == "ok"
		}},
		{"Salesforce names no life, and hands on the instance", "salesforce", func(p provider.Profile, is tokenbroker.Traits) bool {
			return is.DefaultLife == time.Hour && slices.Contains(p.Metadata, "instance_url") && is.Rotates && is.Grace == 0 && is.IdleLife == 30*days
		}},
		{"Salesforce's assertions live 3 minutes and are for the login host", "salesforce-jwt", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return time.Duration(*p.AssertionLife) == 3*time.Minute && p.GrantAudience == "https://login.salesforce.com" && p.Grants[0] == tokenbroker.GrantJWTBearer
		}},
		{"Okta forgives the token before for 30 s", "okta", func(_ provider.Profile, is tokenbroker.Traits) bool { return is.Grace == 30*time.Second }},
		{"Auth0 forgives nothing unless it is set", "auth0", func(_ provider.Profile, is tokenbroker.Traits) bool { return is.Rotates && is.Grace == 0 }},
		{"Atlassian rotates, forgives for 10 minutes, and ends a grant after a year", "atlassian", func(p provider.Profile, is tokenbroker.Traits) bool {
			return is.Grace == 10*time.Minute && is.KillsOld && is.IdleLife == 90*days && is.AbsoluteLife == 365*days && p.AuthorizationParams["audience"] == "api.atlassian.com"
		}},
		{"Xero forgives a lost answer for 30 minutes", "xero", func(_ provider.Profile, is tokenbroker.Traits) bool {
			return is.Grace == 30*time.Minute && is.IdleLife == 60*days && is.KillsOld
		}},
		{"QuickBooks names the refresh token's life in a field of its own, and ends it after five years", "quickbooks", func(p provider.Profile, is tokenbroker.Traits) bool {
			return p.RefreshTokenExpiryField == "x_refresh_token_expires_in" && is.IdleLife == 100*days && is.AbsoluteLife == 5*365*days
		}},
		{"HubSpot's code is in status, and its refresh token stays", "hubspot", func(p provider.Profile, is tokenbroker.Traits) bool {
			return p.ErrorPath == "status" && !is.Rotates && is.DefaultLife == 30*time.Minute
		}},
		{"Zoho keeps 15 tokens alive, gives ten in ten minutes, and hands on the data centre", "zoho", func(p provider.Profile, is tokenbroker.Traits) bool {
			return is.LiveTokens == 15 && is.Floor == time.Minute && slices.Contains(p.Metadata, "api_domain") && !is.Rotates && p.ScopeSeparator == ","
		}},
		{"PayPal has one grant, and its code in name", "paypal", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return slices.Equal(p.Grants, []tokenbroker.GrantType{tokenbroker.GrantClientCredentials}) && p.ErrorPath == "name"
		}},
		{"Zoom's server-to-server grant has another name, and is asked in the URL", "zoom-s2s", func(p provider.Profile, is tokenbroker.Traits) bool {
			return p.GrantTypes[tokenbroker.GrantClientCredentials] == "account_credentials" && p.BodyFormat == "query" && p.TokenParams["account_id"] != "" && is.LiveTokens == 1
		}},
		{"only the newest of a Zoom user's tokens work", "zoom", func(_ provider.Profile, is tokenbroker.Traits) bool { return is.Rotates && is.KillsOld }},
		{"Spotify may or may not bring a refresh token, and ends it six months after consent", "spotify", func(_ provider.Profile, is tokenbroker.Traits) bool {
			return is.Rotates && is.AbsoluteLife == 180*days
		}},
		{"LinkedIn ends a refresh token a year after consent", "linkedin", func(_ provider.Profile, is tokenbroker.Traits) bool { return is.AbsoluteLife == 365*days }},
		{"a refresh at Airtable ends both tokens before it", "airtable", func(_ provider.Profile, is tokenbroker.Traits) bool {
			return is.Rotates && is.KillsOld && is.IdleLife == 60*days
		}},
		{"GitLab's loser gets invalid_grant", "gitlab", func(_ provider.Profile, is tokenbroker.Traits) bool { return is.Rotates && is.Grace == 0 }},
		{"Cognito's rotation is optional", "cognito", func(_ provider.Profile, is tokenbroker.Traits) bool { return is.Rotates && is.Grace == 0 }},
		{"Docusign's assertions are for its host", "docusign-demo", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return p.GrantAudience == "account-d.docusign.com"
		}},
		{"Box's assertions live under a minute and say for what the subject stands", "box", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return time.Duration(*p.AssertionLife) < time.Minute && p.AssertionClaims["box_sub_type"] == "enterprise"
		}},
		{"Shopify has one expiring token alive per store", "shopify", func(p provider.Profile, is tokenbroker.Traits) bool {
			return is.LiveTokens == 1 && is.KillsOld && p.TokenParams["expiring"] == "1" && is.IdleLife == 90*days
		}},
		{"Square says when the token ends, not how long it lives", "square", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return p.ExpiryField == "expires_at" && p.ExpiryUnit == "rfc3339"
		}},
		{"Figma refreshes at another URL", "figma", func(p provider.Profile, is tokenbroker.Traits) bool {
			return p.RefreshEndpoint != p.TokenEndpoint && !is.Rotates
		}},
		{"Withings wraps its tokens", "withings", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return p.TokenPath == "body" && p.TokenParams["action"] == "requesttoken"
		}},
		{"TikTok looks for the client id under another name, too", "tiktok", func(p provider.Profile, _ tokenbroker.Traits) bool {
			return p.TokenParams["client_key"] == p.AuthorizationParams["client_key"] && p.TokenParams["client_key"] != ""
		}},
		{"Mailchimp's expires_in of 0 means never", "mailchimp", func(p provider.Profile, is tokenbroker.Traits) bool {
			return p.ExpiryField != "expires_in" && is.DefaultLife == 365*days
		}},
		{"NetSuite ends a refresh token after a week", "netsuite", func(p provider.Profile, is tokenbroker.Traits) bool {
			return is.AbsoluteLife == 7*days && p.Grants[0] == tokenbroker.GrantClientCredentials
		}},
		{"a fixed token needs no endpoint", "api-key", func(p provider.Profile, _ tokenbroker.Traits) bool { return p.TokenEndpoint == "" }},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			p := merged(t, tt.profile)
			if !tt.holds(p, p.Traits()) {
				t.Errorf("the profile %s says otherwise", tt.profile)
			}
		})
	}
}

// TestErrorsAreWhatTheyAreThere has replies as their providers send them, with what they mean.
func TestErrorsAreWhatTheyAreThere(t *testing.T) {
	const dead, config, throttled, transient, clock = tokenbroker.ClassDeadGrant, tokenbroker.ClassConfiguration, tokenbroker.ClassThrottled,
		tokenbroker.ClassTransient, tokenbroker.ClassClockSkew
	for _, tt := range []struct {
		profile           string
		status            int
		code, description string
		class             tokenbroker.Class
		cause             tokenbroker.Cause
	}{
		// Google's table of JWT error codes, in its order.
		{"google-service-account", 401, "unauthorized_client", "Unauthorized client or scope in request.", config, "delegation_not_authorized"},
		{"google-service-account", 401, "unauthorized_client", "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.", config, "delegation_scopes_not_authorized"},
		{"google-service-account", 403, "access_denied", "", config, "delegation_denied"},
		{"google-service-account", 400, "admin_policy_enforced", "", config, "blocked_by_admin_policy"},
		{"google-service-account", 401, "invalid_client", "The OAuth client was invalid.", config, "service_account_unknown"},
		{"google-service-account", 400, "invalid_grant", "Not a valid email.", config, "subject_not_an_email"},
		{"google-service-account", 400, "invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values.", clock, "clock_skew"},
		{"google-service-account", 400, "invalid_grant", "Invalid JWT Signature.", config, "key_unknown"},
		{"google-service-account", 400, "invalid_scope", "Invalid OAuth scope or ID token audience provided.", config, "scope_malformed"},
		{"google-service-account", 400, "disabled_client", "The OAuth client was disabled.", config, "key_disabled"},
		{"google-service-account", 403, "org_internal", "", config, "org_internal_only"},

		{"google", 400, "invalid_grant", "Token has been expired or revoked.", dead, "token_expired_or_revoked"},
		{"google", 400, "invalid_grant", "reauth related error (invalid_rapt)", dead, "session_policy"},
		{"entra", 400, "invalid_grant", "AADSTS50196: The server terminated an operation because it encountered a loop.", throttled, "refresh_loop"},
		{"entra", 400, "invalid_request", "AADSTS90009: Application is requesting a token for itself.", config, "scope_needed_on_refresh"},
		{"entra", 400, "invalid_request", "AADSTS90023: The scope requested is invalid.", config, "scope_needed_on_refresh"},
		{"entra", 401, "invalid_client", "AADSTS7000222: The provided client secret keys are expired.", config, "client_secret_expired"},
		{"entra", 401, "invalid_client", "AADSTS7000215: Invalid client secret provided.", config, "client_secret_wrong"},
		{"entra", 400, "invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity.", dead, "refresh_token_idle"},
		{"github-app", 200, "bad_refresh_token", "The refresh token passed is incorrect or expired.", dead, "refresh_token_spent"},
		{"slack", 200, "invalid_refresh_token", "", dead, "refresh_token_spent"},
		{"slack-user", 200, "account_inactive", "", dead, "user_left"},
		{"salesforce", 400, "invalid_grant", "token request is already being processed", transient, "concurrent_refresh"},
		{"salesforce", 400, "invalid_grant", "expired access/refresh token", dead, "token_expired_or_revoked"},
		{"salesforce-jwt", 400, "invalid_grant", "user hasn't approved this consumer", config, "user_not_preauthorized"},
		{"auth0", 500, "access_denied", "Global limit has been reached", throttled, "tenant_limit"},
		{"atlassian", 403, "unauthorized_client", "refresh_token is invalid", dead, "refresh_token_unknown"},
		{"atlassian", 403, "invalid_grant", "Unknown or invalid refresh token.", dead, "refresh_token_unknown"},
		{"atlassian", 401, "access_denied", "Unauthorized", config, "client_secret_wrong"},
		{"hubspot", 400, "BAD_REFRESH_TOKEN", "missing or unknown auth code", dead, "refresh_token_unknown"},
		{"hubspot", 400, "BAD_HUB", "", dead, "portal_deleted"},
		{"zoho", 200, "Access Denied", "", throttled, "token_limit"},
		{"zoho", 400, "", "You have made too many requests continuously. Please try again after some time. Access Denied", throttled, "token_limit"},
		{"zoho", 200, "invalid_code", "", dead, "refresh_token_unknown"},
		{"paypal", 429, "RATE_LIMIT_REACHED", "Too many requests.", throttled, "token_limit"},
		{"paypal-sandbox", 401, "invalid_client", "Client Authentication failed", config, "sandbox_mismatch"},
		{"zoom", 400, "invalid_grant", "Invalid Token!", dead, "refresh_token_spent"},
		{"docusign", 400, "consent_required", "", config, "user_not_preauthorized"},
		{"twitter", 400, "invalid_request", "Value passed for the token was invalid.", dead, "refresh_token_spent"},
	} {
		t.Run(tt.profile+" "+tt.code+" "+tt.description, func(t *testing.T) {
			p := merged(t, tt.profile)
			i := slices.IndexFunc(p.Errors, func(r provider.ErrorRule) bool { return r.Matches(tt.status, tt.code, tt.description) })
			if i < 0 {
				t.Fatal("no rule speaks of it")
			}
			if r := p.Errors[i]; r.Class != tt.class || r.Cause != tt.cause {
				t.Errorf("got %s, %s", r.Class, r.Cause)
			}
		})
	}
}

func TestEveryTestEnvironmentHasItsOwnEndpoints(t *testing.T) {
	n := 0
	for _, name := range provider.Builtins() {
		p := merged(t, name)
		if p.TestOf == "" {
			continue
		}
		n++
		if real := merged(t, p.TestOf); real.TokenEndpoint == p.TokenEndpoint && real.UserinfoEndpoint == p.UserinfoEndpoint {
			t.Errorf("%s asks where %s asks", name, p.TestOf)
		}
	}
	if n < 7 {
		t.Errorf("only %d test environments", n)
	}
}

func TestThereAreManyProviders(t *testing.T) {
	if n := len(provider.Builtins()); n < 45 {
		t.Errorf("got %d built-in profiles", n)
	}
}
