// Package client is what a worker imports:
//
//	c, err := client.NewFromEnv()
//	…
//	defer c.Close()
//	tok, err := c.Token(ctx, "google/reports-drive")
//
// Token answers from memory until the broker means to have a newer one, and keeps the last good token through an outage of the broker for
// as long as it lives. Subscribe tells of each fresh token as it comes, over reconnects. TokenSource is Token for libraries that
// take an oauth2.TokenSource, and Transport makes an http.Client that calls an API with the token and gets past one that the API refuses.
//
// The connection is mTLS with certificates from files, which are read again when they change. Errors are those of package tokenbroker:
// errors.Is(err, tokenbroker.ErrReauthorize) works across the wire, and errors.As gives a *tokenbroker.Problem with the delay after which
// to ask again. All methods are safe for concurrent use.
package client
