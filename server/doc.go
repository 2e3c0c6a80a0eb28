// Package server is the gRPC surface of the broker. It translates and delegates: who calls, may they, one call on the broker,
// the answer.
//
// A call passes, in this order: recover, metrics, log, status, the per-identity limit, the guard, the handler, with a default deadline.
// The guard is one table from method to action; a method that is not in it is denied (invariant 10). It reads the identity from the
// connection's certificate, never from a header, asks the policy, runs the handler, writes one audit record, and only then lets the
// answer go: no record, no token. A call that changes something is recorded before it runs, too. An answer with a token is judged once
// more when it leaves, by the policy in force then and by the scopes that the token has.
//
// An unknown credential and a forbidden one answer alike. Errors map to gRPC codes in one table (status.go), each with one
// google.rpc.ErrorInfo and, where waiting helps, a google.rpc.RetryInfo. What the table does not know becomes INTERNAL, and its text
// stays in the log.
//
// No reply message holds a refresh token or a client secret; a test walks the descriptors. Messages are never formatted into logs:
// debug_redact has no effect in Go.
package server
