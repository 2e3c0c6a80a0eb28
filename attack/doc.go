// Package attack holds no code, only attacks: tests that start the real tokenbrokerd over a folder of its own, with real certificates and
// a sandbox for a provider, and do to it what the network, a stolen disk or a careless operator may do.
//
// Each test is named after the row of the threat model that it plays: S01 to S34 are attacks, P10 to P14, P24 and P25 promises under
// faults. Beside every attack a well-behaved worker goes on: it asks for tokens and holds a stream, and the test fails if any of its calls
// fails, or if its stream misses a change. What an attack may cost is asserted as counts and bytes, never as speed; latencies are logged.
//
// The counts are small in an ordinary run. With TOKENBROKER_SOAK set, as make soak does, they are those of the threat model.
package attack
