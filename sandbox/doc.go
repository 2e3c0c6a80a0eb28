// Package sandbox is a strict, scriptable OAuth 2.0 authorization server for tests and development.
//
// A [Server] holds any number of issuers, each with its own clients, accounts and rules. Each answers on these paths:
//
//	/{issuer}/token        client_credentials, refresh_token, authorization_code, password (RFC 6749), device_code
//	                       (RFC 8628), jwt-bearer (RFC 7523), token-exchange (RFC 8693)
//	/{issuer}/authorize    the authorization endpoint, with PKCE (RFC 7636) and iss (RFC 9207), and a page to consent on
//	/{issuer}/device       device authorization (RFC 8628); /{issuer}/activate is its page
//	/{issuer}/revoke       RFC 7009
//	/{issuer}/introspect   RFC 7662
//	/{issuer}/resource     200 for a live bearer token, 401 for any other (RFC 6750); with ?scope=…, 403 where it lacks one of these
//	/{issuer}/userinfo     OpenID Connect; an id_token comes with the scope openid
//	/{issuer}/jwks         the keys of its JWTs
//	/{issuer}/.well-known/openid-configuration and /.well-known/oauth-authorization-server/{issuer} (RFC 8414)
//
// The same server works in two forms. As an [http.Handler] it sits behind a real listener; serve it over TLS. As an
// [http.RoundTripper] it answers inside the calling goroutine, with no socket and no goroutine of its own, so that it can
// be used in a testing/synctest bubble and every delay passes in fake time:
//
//	srv, err := sandbox.New(sandbox.Config{Issuers: []sandbox.Issuer{{
//		Name:    "acme",
//		Clients: []sandbox.Client{{ID: "reports", Secrets: []string{"s3cret"}}},
//	}}})
//	refreshToken := srv.SeedRefreshToken("acme", "reports", "files.read")
//	srv.Fail("acme", sandbox.Fault{Stage: sandbox.AfterCommit, Drop: true}) // rotated, and the answer is lost
//	client := &http.Client{Transport: srv}                                  // POST to https://any.host/acme/token
//
// Where a person is needed, [Server.Authorize], [Server.Approve] and [Server.Deny] are that person, and [Issuer.AutoApprove]
// needs none. [Server.Presenting] is a client with a certificate. [Server.Fail] makes requests fail, [Server.Advance] moves
// the clock.
//
// The same words steer it from outside: a [Scenario] in YAML, [Server.ControlHandler] in JSON, and the command tokenctl
// sandbox. Package serve puts both on ports.
//
// # What it promises
//
//   - The zero value of each policy field is the strict reading: refresh tokens rotate, a replay kills the whole family, a
//     client authenticates by its registered method alone, secrets in a Basic header must be form-encoded, plain HTTP is
//     refused, PKCE is required, redirect URIs are compared exactly, an assertion's jti works once, nobody consents unasked.
//   - A window is half open: a token of one hour is refused at exactly one hour, a replay at exactly the end of the grace too.
//   - A request is processed in one step. Of many concurrent uses of one refresh token exactly one finds it unspent.
//   - [Server.Journal] names refresh tokens and clients, never a token or a secret. What it issues begins with "sandbox_":
//     [AccessPrefix], [RefreshPrefix], [CodePrefix] or [DevicePrefix], so that a test can look for it where it must not be.
//     A JWT can't; its jti and kid do.
//   - It starts no goroutine and opens no socket. Chance comes of [Config.Seed] alone: the same requests in the same order
//     meet the same faults.
//   - [Server.Count] and [Server.Redemptions] are exact however many requests came; the journal itself keeps the newest
//     [Config.JournalSize] entries.
//
// # What it refuses
//
// It is no product, and must not be reached by others: who reaches it can get tokens of its accounts. State lives in memory,
// client secrets and passwords are compared but not protected, and a spent refresh token is remembered for as long as the
// server lives, because a replay must be found whenever it comes (some 200 bytes each).
// Methods that script a test panic when they name an issuer or client that does not exist, or when a fault contradicts
// itself: that is a mistake in the test, and a test that goes on would prove nothing.
package sandbox
