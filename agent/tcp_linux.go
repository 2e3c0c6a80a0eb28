package agent

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// ownerOfTCP finds the uid of the socket at the other end of a connection within this host: the one that is bound to from and connected
// to to.
func ownerOfTCP(from, to netip.AddrPort) (uint32, error) {
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return 0, err
		}
		uid, found, err := findOwner(f, from, to)
		_ = f.Close()
		if found || err != nil {
			return uid, err
		}
	}
	return 0, errors.New("no socket of this network namespace is the other end")
}

// findOwner reads a table of the kernel (proc_net_tcp.txt): number, local and remote address, state, queues, timer, retransmits, uid.
func findOwner(table io.Reader, from, to netip.AddrPort) (uid uint32, found bool, err error) {
	local, remote := kernelAddrs(from), kernelAddrs(to)
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		const established = "01" // in other states the kernel may not know the owner any more
		if len(f) < 8 || f[3] != established || !(f[1] == local[0] && f[2] == remote[0] || f[1] == local[1] && f[2] == remote[1]) {
			continue
		}
		id, err := strconv.ParseUint(f[7], 10, 32)
		if err != nil {
			return 0, false, fmt.Errorf("the kernel's table of sockets: %w", err)
		}
		return uint32(id), true, nil
	}
	return 0, false, lines.Err()
}

// kernelAddrs is an IPv4 address and port as the tables of IPv4 and of IPv6 have it: words in the order of this machine, in hex.
func kernelAddrs(a netip.AddrPort) [2]string {
	four, six := a.Addr().Unmap().As4(), a.Addr().As16()
	mapped := netip.AddrFrom4(four).As16()
	copy(six[:], mapped[:])
	port := fmt.Sprintf(":%04X", a.Port())
	return [2]string{words(four[:]) + port, words(six[:]) + port}
}

func words(b []byte) string {
	out := make([]byte, len(b))
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(out[i:], binary.NativeEndian.Uint32(b[i:]))
	}
	return strings.ToUpper(hex.EncodeToString(out))
}
