// Package store keeps what the broker must not forget: credentials, grants, access tokens and OAuth clients, as sealed
// records over a small transactional [Engine].
//
// # Records
//
// Each credential has four kinds of records, each under a key of its own, so that an edit of the configuration can't lose a
// refresh token:
//
//	bucket       name                         holds
//	index        <credential>                 what Summaries reads; the record numbers of config and grant
//	credential   <credential>                 the configuration
//	grant        <credential>                 refresh token, intent, state; the record number of each variant's token
//	token        <credential>!<variant hash>  the newest access token of a variant
//	orphan       <credential>!<random>        a result that lost its compare; kept until an operator looks
//	clientindex  <client>                     the record number of the client
//	client       <client>                     an OAuth client with its secrets
//	consent      <consent id>                 a consent, and what it brought until a credential has it
//	metadata     <provider>                   what an authorization server says of itself
//	usage        <credential>, !rules         who used it, when rules were of use; as package usage wrote it down
//	audit        keys                         the keys of the hashes by which the audit log names tokens
//	meta         head, keyset                 in the clear: schema and store id; the wrapped keys
//	meta         numbers, probe               sealed: boot count and bound of the numbers given out; what Prove writes
//
// Names of credentials, clients and providers are in the clear, for they are keys; variants are keyed hashes, for a subject may be a
// person. Everything else is sealed as drawn at sealer. The record numbers form a chain, index → config, grant → token: each
// link says which writing of the next record is the right one.
//
// # Promises
//
//   - A method that returned nil error has its write on disk, all of it; one that returned an error has written nothing, or
//     says [ErrUnknown]. Concurrent calls share the sync.
//   - Commit never overwrites a refresh token that it did not spend, and never drops one that the provider gave.
//   - Generations only rise, across restarts, deletes and re-creations; of a deleted credential's none comes back.
//   - A record that was edited, swapped with another, or put back to an older state does not open: ErrTampered names it,
//     and nothing else is affected. Limits: who puts back every record of a credential together, a consent, a provider's
//     metadata, a record of usage, or the whole file, is not noticed here.
//   - Open touches nothing before it has seen that the schema is known and that the keys open. It never makes keys for a
//     store that holds records.
//
// It refuses to judge: who may see a credential, when to refresh, what a failure means. It speaks to no network. It keeps no
// cache: every call reads the engine.
package store
