package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// The request and the reply of sock_diag(7), behind the header of netlink(7): the words of struct inet_diag_req_v2 and inet_diag_msg that matter.
const (
	diagByFamily   = 20 // SOCK_DIAG_BY_FAMILY
	diagRequest    = 56 // bytes
	diagSockID     = 8  // where the ports and addresses begin in the request; 4 in the reply
	diagReplyState = 1
	diagReplyID    = 4
	diagReplyUID   = 64
	diagReply      = 72
	established    = 1 // TCP_ESTABLISHED
	diagTimeout    = 5 * time.Second
)

// ownerOfTCP finds the uid of the socket at the other end of a connection within this host: the one that is bound to from and connected
// to to. It asks for that one socket, whatever others there are. Only a socket that is still fully open has an owner: of one that its user has half
// closed, or left, the kernel may say anything. The error wraps errUnknowable if this system can't tell of any.
func ownerOfTCP(from, to netip.AddrPort) (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUnknowable, err)
	}
	defer func() { _ = unix.Close(fd) }()
	limit := unix.NsecToTimeval(diagTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return 0, err
	}
	if err := unix.Sendto(fd, diagQuestion(from, to), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("%w: %w", errUnknowable, err)
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return 0, fmt.Errorf("ask the kernel for a socket: %w", err)
	}
	return diagAnswer(buf[:n], from, to)
}

// diagQuestion asks for the socket of the other end.
func diagQuestion(from, to netip.AddrPort) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+diagRequest)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], diagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	req := b[unix.NLMSG_HDRLEN:]
	req[0], req[1] = unix.AF_INET, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(req[4:], 1<<established)
	copy(req[diagSockID:], sockID(from, to))
	for i := diagSockID + 40; i < diagSockID+48; i++ {
		req[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	return b
}

// sockID is the ports and addresses of a socket, in the order of the network: ports, then room for two IPv6 addresses.
func sockID(from, to netip.AddrPort) []byte {
	id := make([]byte, 36)
	src, dst := from.Addr().Unmap().As4(), to.Addr().Unmap().As4()
	binary.BigEndian.PutUint16(id[0:], from.Port())
	binary.BigEndian.PutUint16(id[2:], to.Port())
	copy(id[4:], src[:])
	copy(id[20:], dst[:])
	return id
}

// diagAnswer reads what the kernel says. It may have found another socket, such as a listener.
func diagAnswer(b []byte, from, to netip.AddrPort) (uint32, error) {
	if len(b) < unix.NLMSG_HDRLEN+4 {
		return 0, errors.New("the kernel's answer is too short")
	}
	kind, msg := binary.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:]
	if kind == unix.NLMSG_ERROR {
		if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(msg))); errno != unix.ENOENT {
			return 0, fmt.Errorf("ask the kernel for a socket: %w", errno)
		}
		return 0, errors.New("no socket of this network namespace is the other end")
	}
	if kind != diagByFamily || len(msg) < diagReply {
		return 0, errors.New("the kernel's answer is of another kind")
	}
	if msg[diagReplyState] != established || !sameEnds(msg[diagReplyID:], sockID(from, to)) {
		return 0, errors.New("the other end is not open any more")
	}
	return binary.NativeEndian.Uint32(msg[diagReplyUID:]), nil
}

// sameEnds compares ports and addresses. A socket for IPv6 has an IPv4 address in the last four bytes of its own.
func sameEnds(got, want []byte) bool {
	if string(got[:4]) != string(want[:4]) {
		return false
	}
	for _, at := range []int{4, 20} {
		four, mapped := got[at:at+4], got[at+12:at+16]
		if w := string(want[at : at+4]); string(four) != w && string(mapped) != w {
			return false
		}
	}
	return true
}
