// Package daemon is a whole broker as one value: it opens store, keys, policy, audit log and certificates, puts the engine and the
// gRPC surface over them, serves, watches the files, and shuts down in order. The command tokenbrokerd and package brokertest
// start it; nobody else has a reason to.
//
// Open refuses before it touches the store when anything else is wrong: a bad policy, certificate, provider or key leaves the
// database as it was. Run serves until its context ends and then drains: readiness and health say no, subscribers are told to
// go elsewhere, exchanges in flight end and are committed, streams end, calls finish, and the audit log and the store are closed
// last.
//
// The ops listener speaks plain HTTP and gives away no secret: /livez, /readyz and /metrics. Bind it to loopback, or to a network
// that only probes and scrapers reach.
package daemon
