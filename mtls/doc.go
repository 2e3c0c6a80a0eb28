// Package mtls says who is at the other end of a connection, and keeps both ends' certificates current.
//
//   - [Identity] reads an identity from a certificate: its one SPIFFE ID (X509-SVID §2), or, where the caller allows that,
//     its one DNS name. [PeerFromState] does so for a finished handshake and adds what ends the connection.
//   - A [Source] holds a certificate, its key and a CA bundle from PEM files. [Source.Reload] and [Source.Watch] take up
//     new files without a restart; [Source.ServerTLS] and [Source.ClientTLS] make the TLS configurations that use them.
//   - A [CA] issues certificates for development and tests. It keeps no record of what it issued and revokes nothing.
//
// Promises. Each handshake uses one consistent certificate, key and bundle: those in force when it began on a server, and
// those of the moment on a client. Files are checked whole before they are used; whatever is wrong with them, the pair
// in use stays and the error says what to do. A CA that was taken out of the bundle lets nobody in from then on.
//
// Refusals. TLS 1.2 and older; session resumption, which would skip the checks (CVE-2025-68121); a client without a
// certificate; a certificate that may sign others; one that does not list the key usage of its end; two URI names; an
// identity from the common name. Connections that are already open are not cut: [Peer.NotAfter] tells the owner when to.
//
// Every CA of a bundle vouches for every identity. Whoever needs trust domains apart opens a Source for each, or refuses
// in [ServerOptions.Accept].
package mtls
