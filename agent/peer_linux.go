package agent

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroups is more than Linux lets a process have (NGROUPS_MAX).
const maxGroups = 65536

func peerOfFD(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	if cred.Uid == nobody { // a peer that is gone; for one of another user namespace see namespace
		return Peer{}, errors.New("the kernel does not know")
	}
	groups, err := groupsOfFD(fd)
	if err != nil {
		return Peer{}, err
	}
	return Peer{UID: cred.Uid, Groups: append([]uint32{cred.Gid}, groups...), PID: int(cred.Pid)}, nil
}

// groupsOfFD asks for the supplementary groups. A kernel before 4.13 knows none: then the primary one is all there is.
func groupsOfFD(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ENOPROTOOPT, errno == unix.ENODATA:
			return nil, nil
		case errno == unix.ERANGE && len(groups) < maxGroups:
			groups = make([]uint32, min(int(size/4)+1, maxGroups))
		default:
			return nil, errno
		}
	}
}
