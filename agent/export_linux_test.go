package agent

// InNamespace is what a namespace leaves of a peer.
func InNamespace(partial bool, uid, gid uint32, p Peer) (Peer, error) {
	return namespace{partial, uid, gid}.known(p)
}
