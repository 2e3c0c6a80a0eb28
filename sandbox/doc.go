// Package sandbox is a strict, scriptable OAuth 2.0 authorization server for tests and development.
//
// A [Server] holds any number of issuers, each with its own clients and its own rules for rotation, reuse and scopes. It
// answers on two paths per issuer:
//
//	POST /{issuer}/token     client_credentials and refresh_token (RFC 6749 §4.4, §6)
//	     /{issuer}/resource  200 for a live bearer token, 401 for any other (RFC 6750)
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
// # What it promises
//
//   - The zero value of each policy field is the strict reading: refresh tokens rotate, a replay kills the whole family, a
//     client authenticates by its registered method alone, secrets in a Basic header must be form-encoded, plain HTTP is refused.
//   - A window is half open: a token of one hour is refused at exactly one hour, a replay at exactly the end of the grace too.
//   - A request is processed in one step. Of many concurrent uses of one refresh token exactly one finds it unspent.
//   - [Server.Journal] names refresh tokens and clients, never a token or a secret. Tokens begin with [AccessPrefix] or
//     [RefreshPrefix], so that a test can look for them where they must not be.
//   - [Server.Count] and [Server.Redemptions] are exact however many requests came; the journal itself keeps the newest
//     [Config.JournalSize] entries.
//
// # What it refuses
//
// It is no product: state lives in memory, client secrets are compared but not protected, and a spent refresh token is
// remembered for as long as the server lives, because a replay must be found whenever it comes (some 200 bytes each).
// Methods that script a test panic when they name an issuer or client that does not exist, or when a fault contradicts
// itself: that is a mistake in the test, and a test that goes on would prove nothing.
package sandbox
