// Package serve puts a sandbox on a port, for test suites and for people.
//
//	s, err := serve.Listen(ctx, serve.Config{Scenario: scenario})
//	…
//	go func() { done <- s.Run(ctx) }() // ends with ctx
//	client := s.Client()               // trusts the sandbox's certificate
//	client.PostForm(s.URL+"/acme/token", …)
//
// # What it promises
//
//   - It listens on loopback, over TLS, with a certificate that it has just made. Plain HTTP is for loopback alone, and only
//     if [Config.PlainHTTP] asks for it. Another address is refused unless [Config.AllowRemote] says that it is meant.
//   - The control endpoint has a port of its own, always on loopback and over plain HTTP, and answers only requests that name
//     a loopback host, so that no web page can reach it by a name of its own.
//   - A client certificate is asked for and handed to the sandbox as it is, for tls_client_auth. Nobody verifies it: a sandbox
//     compares, it does not trust.
//   - [Listen] returns with both ports open; [Server.Run] returns when every request has ended and both are closed.
//
// # What it refuses
//
// It is no product and must not be reachable by others: who reaches it can get tokens of its accounts, and who reaches its
// control endpoint can do everything.
package serve
