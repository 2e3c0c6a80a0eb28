// Package mtls says who is at the other end of a connection, and keeps both ends' certificates current.
//
//   - [Identity] reads an identity from a certificate: its one SPIFFE ID (X509-SVID §2), or, where the caller allows that,
//     its one DNS name.
//   - A [Source] holds a certificate, its key and the bundles of CAs, from PEM files or from the SPIFFE Workload API. [Source.Reload] and
//     [Source.Watch] take up new ones without a restart; [Source.ServerTLS] and [Source.ClientTLS] make the TLS configurations that use
//     them.
//   - A [Gate] says who may come in by a listener, and whether a peer that is in still might: [Gate.Peer].
//   - A [DenyList] refuses certificates before their time.
//   - A [CA] issues certificates for development and tests. It keeps no record of what it issued and revokes nothing.
//
// Promises. Each handshake uses one consistent certificate, key and set of bundles: those in force when it began on a server, and
// those of the moment on a client. Files are checked whole before they are used; whatever is wrong with them, what is in use stays and
// the error says what to do. A CA that was taken out of the bundle lets nobody in from then on. A CA in the bundle of a trust domain
// vouches for identities of that domain and for no others, whatever it issues; [Files] says what the CA file vouches for.
//
// Refusals. TLS 1.2 and older; session resumption, which would skip the checks (CVE-2025-68121); a client without a
// certificate; a certificate that may sign others; one that does not list the key usage of its end; two URI names; an
// identity from the common name. Connections that are already open are not cut: [Gate.Revision] tells their owner when to ask anew, and
// [Peer.NotAfter] when they end.
package mtls
