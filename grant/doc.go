// Package grant is the token-endpoint client: it sends one token request and says what came of it.
//
// The request that spends a rotating refresh token can't be repeated, so all here serves one promise: [Client.Exchange]
// sends at most once. No redirect is followed, no second way of authenticating is tried, nothing is retried. The body of
// a request is a reader that gives its bytes once and can be sealed: when the transport fails before it read the body,
// the body is sealed, so that it never leaves, and only then is the request called unsent. Everything else that fails
// without a readable answer is ambiguous. A rotating refresh token travels on a connection of its own, since a kept-alive
// one may be closed by the peer at the moment of writing and nobody could tell what it read.
//
// Errors are [tokenbroker.Failure] values: a class, a code, a wait. What a provider writes never gets into them, but for
// an error code of harmless characters that holds nothing of what was sent. A reply with a plausible refresh token and a
// fault gives both: the refresh token in the reply, to be stored first, and the fault as the error.
//
// How replies are read:
//   - JSON or form-encoded, told by the body, not by its content type. A byte order mark before the object and bytes after
//     it are ignored. Member names are compared exactly.
//   - A member given twice with the same value counts once. With different values it has no value, and a reply in which that
//     happens to a member that matters is ambiguous (duplicate_key).
//   - Of a reply that ends early, the members that came whole are read: only its refresh token is used.
//   - Life: a number or a numeric string, in the profile's unit, from the moment of sending; at most a year. Absent, null, ""
//     or not a number: the profile's, marked estimated. 0 or less: expired_on_arrival.
//   - Scopes: a string or an array. Empty or absent: as asked. Otherwise what the reply says, be it less than asked. A request
//     for fewer scopes than the grant has needs a profile that downscopes and a reply that names no other scope.
//   - token_type: missing or "bearer" in any case is Bearer, or what the profile adds; anything else is refused.
//
// The connection: TLS 1.2 or better, the system's roots or the profile's, no proxy but the profile's, no compression, a reply of
// at most 256 KiB. The address is judged when the connection is made, after the name was resolved.
//
// Around the token: [Client.AuthorizationURL], [Client.CheckCallback] and [Client.Redeem] are the two legs of a consent, [Client.StartDevice]
// and [Client.PollDevice] those on another device, [Client.Revoke] ends a token, [Client.Check] judges one, [Client.RefreshMetadata] finds
// what a profile leaves open. The same rules hold: no redirect, replies of bounded size (512 KiB for keys), addresses judged, and nothing of
// a provider's text but codes and names that were looked at. A code is sent once, on a connection of its own. Keys, accounts and test calls
// are asked for where the profile says and nowhere else; what a token or a document names besides counts for nothing.
package grant
