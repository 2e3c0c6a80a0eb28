// Package agent serves tokens to the jobs of one host: one client of the broker, and behind it a Unix socket, and a loopback port if there
// has to be one, at which local jobs ask over HTTP or by the same gRPC TokenService.
//
// # What it promises
//
//   - Whoever asks is who the kernel says: uid, groups and process of a Unix socket's peer (SO_PEERCRED, SO_PEERGROUPS), and the uid that
//     owns the other end of a loopback connection. Rules give uids and gids credentials. Without rules it is its own uid alone that may
//     ask; root is nobody special.
//   - However many local jobs ask and subscribe, the broker sees one client: one stream for all that is in use.
//   - Jobs keep the last good token through an outage of the broker, as those of package client do.
//   - Each answer with a token is recorded before it leaves, in the format of package audit; no record, no token. Credential and generation
//     are those of the broker's own trail, so that "who got this token" goes on behind the agent.
//   - It holds access tokens only, in memory only, and logs none. The file of the bearer secret is the one thing that it writes besides
//     the trail.
//
// # What it refuses
//
// A caller whom the kernel does not name; more connections, calls or different tokens in use than a user's share; whatever a browser may have sent (Origin, Sec-Fetch-Site, a
// Host that is not the listener's own); a listener that is not on 127.0.0.1; a socket that another agent answers on. Where a system can't
// say who is at the other end of a socket, there is no agent: [Open] says so.
//
// The metadata server of Google's machines is emulated on a loopback port, for their SDKs, where that is switched on; see [Metadata].
package agent
