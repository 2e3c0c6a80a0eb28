// Package broker is the engine: it keeps the newest access token of every credential in memory, refreshes it ahead of its
// expiry by one exchange however many callers ask, and tells subscribers. It knows no transport, no disk and no HTTP; a
// [Store] and an [Upstream] are given to it.
//
// # Invariants
//
// Each has tests that name it (TestInvariantN…).
//
//  1. Commit before publish: a token and its generation are durable before anyone sees them. Where a refresh may rotate the
//     refresh token, an intent is durable before the request is sent; where it can't, the store is known to be writable.
//  2. Flights are per variant; exchanges that share a refresh token queue behind one lock per credential. No caller gets
//     another variant's token. A flight runs on the broker's own context: a caller who leaves ends only its own wait.
//     Whoever arrives after a flight finds its result and causes no second exchange.
//  3. One send per attempt. A second client secret or key is a second attempt with an intent of its own, tried only after
//     invalid_client, or a refusal of the key as such; the one that worked goes first, one that has expired last.
//  4. An outage never becomes REAUTHORIZE. invalid_grant condemns a credential only if the stored refresh token is still the
//     one that was sent, and after the provider's number of consecutive strikes. Nothing is deleted by the broker itself.
//  5. A valid token is served until its expiry less the guard, whatever the refresh does; an expired one never. Life is judged by
//     wall clock and monotonic clock, and the more pessimistic one wins.
//  6. A failure caused by a variant's own input (scopes, subject, audience) marks that variant alone, and is remembered for a while.
//  7. A subscriber has one slot per selector. The newest (generation, revision) wins; the publisher never waits for it.
//  8. Generations only rise: across restarts, deletes and re-creations.
//  9. No audit record, no token.
//
// # Shape
//
// Token reads an immutable [Snapshot] through an atomic pointer. Where that does not do, the caller joins the variant's
// flight. The schedule joins flights by the same door. A flight takes the credential's spend lock, a turn in the bucket of its
// (provider, OAuth client), writes the intent, sends once, commits, and only then swaps the snapshot and offers it to the
// slots of its subscribers.
//
// # What a grant lives on
//
// A refresh token, a static token, a password, a subject token, the access token of another credential, or nothing but its OAuth
// client. Only a refresh token is spent with an intent; a password goes when the first refresh token comes. A grant with nothing to live
// on is never tried: it says what it lacks, from consent_needed to no_refresh_token, and asks for a person. What comes by [Broker.Adopt]
// is durable and on its way to subscribers when that returns, and beats the exchange that it meets.
//
// [Broker.Revoke] goes the other way round than a refresh: what it takes away is forgotten here, durably, before the provider is
// asked, and what the provider has yet to end stays sealed until it has, for a month at most.
package broker
