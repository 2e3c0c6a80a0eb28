// Package client is what a worker imports:
//
//	c, err := client.NewFromEnv()
//	…
//	defer c.Close()
//	tok, err := c.Token(ctx, "google/reports-drive")
//
// The first Token of a credential asks the broker. From then on one stream brings each fresh token of all credentials in use, and Token
// answers from memory: an atomic load, no lock, nothing allocated. A token that nobody read for two of its lives is let go. If the
// broker allows no stream, or it is gone, GetToken keeps tokens fresh in its place. The last good token is kept through an outage for as
// long as it lives, by the wall clock and the monotonic one, and never longer.
//
// Subscribe and OnChange tell of each fresh token as it comes, over reconnects; however many listen, the broker has one selector to
// feed for each credential. Stale tells of a token that should have been renewed. TokenSource is Token for libraries that take an
// oauth2.TokenSource, and Transport makes an http.Client that calls an API with the token and gets past one that the API refuses.
//
// # Addresses
//
// Config.Addr, or TOKENBROKER_ADDR, is one of
//
//	broker.example:8443                  one broker
//	a.example:8443,b.example:8443        several, in turn, those that are well
//	dns:///broker.example:8443           all that the name resolves to; or another target of grpc
//	unix:///run/tokenbroker/agent.sock   an agent on this machine, without certificates
//
// To a broker the connection is mTLS with certificates from files, which are read again when they change, or from the SPIFFE Workload API.
// Each broker has to hold the host of its own address, unless Config.Server names one for all.
//
// # Errors
//
// Errors are those of package tokenbroker: errors.Is(err, tokenbroker.ErrReauthorize) works across the wire, and errors.As gives a
// *tokenbroker.Problem with the delay after which to ask again. A call that no broker could take is made again a few times, with
// jitter; one that a broker refused is not. All methods are safe for concurrent use, and none keeps its caller's context longer than it says.
package client
