package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// namespace is what the kernel puts in place of users and groups that the agent's user namespace does not know (user_namespaces(7)): one and the
// same number for all of them, which may well be that of "nobody" here.
type namespace struct {
	partial  bool // it does not know everybody
	uid, gid uint32
}

// thisNamespace reads what the kernel says of the agent's own.
func thisNamespace() (namespace, error) {
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return namespace{}, fmt.Errorf("look at the user namespace: %w", err)
	}
	n := namespace{partial: !slices.Equal(strings.Fields(string(uids)), []string{"0", "0", "4294967295"})}
	for path, to := range map[string]*uint32{"/proc/sys/kernel/overflowuid": &n.uid, "/proc/sys/kernel/overflowgid": &n.gid} {
		text, err := os.ReadFile(path)
		if err != nil {
			return n, fmt.Errorf("look at the user namespace: %w", err)
		}
		id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
		if err != nil {
			return n, fmt.Errorf("%s: %w", path, err)
		}
		*to = uint32(id)
	}
	if n.partial && ownUID() == n.uid {
		return n, errors.New("the agent's own user is not known in its user namespace, so that nobody could be told from it: map it")
	}
	return n, nil
}

// known leaves of a peer what the namespace knows; it is an error if that is not even its uid.
func (n namespace) known(p Peer) (Peer, error) {
	if !n.partial {
		return p, nil
	}
	if p.UID == n.uid {
		return Peer{}, errors.New("the peer's user is not known in the agent's user namespace")
	}
	p.Groups = slices.DeleteFunc(p.Groups, func(g uint32) bool { return g == n.gid })
	return p, nil
}
