// Package tokenbroker is the vocabulary of the broker: the words that every other package speaks, and nothing that does
// anything with the world. It imports the standard library only, does no I/O and takes no context.
//
//   - A [Credential] is a named grant at a provider: what an operator configures.
//   - An [OAuthClient] is what the broker authenticates as at that provider.
//   - A [Variant] is one (scopes, subject, audience) of a credential, with an access [Token] of its own.
//   - A [Grant] is the durable state of a credential: its refresh token and serial, an open [Intent], its [State].
//   - A [Generation] counts access tokens store-wide; an [Order] is a generation and a revision, and orders messages.
//   - [Traits] are what the engine has to know about a provider; a [Failure] is what a token endpoint's refusal means.
//   - Errors that callers branch on are sentinels (see errors.go); a [Problem] carries data with one of them.
//
// Secrets travel as [Secret], which prints as "[redacted]" under every verb and encoder.
package tokenbroker
