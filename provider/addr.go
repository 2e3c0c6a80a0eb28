package provider

import (
	"fmt"
	"net/netip"
)

// addrKind is what an address is good for.
type addrKind int

const (
	addrPublic addrKind = iota
	addrLoopback
	addrPrivate // in use inside a company
	addrNever   // nothing that a token endpoint lives on
)

// addrTable gives the kind of each special block; the first block that holds an address counts. It follows the IANA
// special-purpose registries; what clouds serve machine credentials on comes first, since some of it lies in private blocks.
var addrTable = []struct {
	block netip.Prefix
	kind  addrKind
	what  string
}{
	{netip.MustParsePrefix("169.254.0.0/16"), addrNever, "link-local"},
	{netip.MustParsePrefix("fe80::/10"), addrNever, "link-local"},
	{netip.MustParsePrefix("fd00:ec2::/32"), addrNever, "cloud metadata"},          // AWS: instances, EKS pods and its other services
	{netip.MustParsePrefix("fd20:ce::254/128"), addrNever, "cloud metadata"},       // Google
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), addrNever, "cloud metadata"}, // Oracle
	{netip.MustParsePrefix("fd00:42::42/128"), addrNever, "cloud metadata"},        // Scaleway
	{netip.MustParsePrefix("fd00:a9fe:a9fe::1/128"), addrNever, "cloud metadata"},  // Linode
	{netip.MustParsePrefix("fd00:100::100:200/128"), addrNever, "cloud metadata"},  // Alibaba
	{netip.MustParsePrefix("100.100.100.200/32"), addrNever, "cloud metadata"},
	{netip.MustParsePrefix("192.0.0.192/32"), addrNever, "cloud metadata"},
	{netip.MustParsePrefix("168.63.129.16/32"), addrNever, "cloud metadata"},
	{netip.MustParsePrefix("0.0.0.0/8"), addrNever, "unspecified"},
	{netip.MustParsePrefix("224.0.0.0/4"), addrNever, "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), addrNever, "reserved"},
	{netip.MustParsePrefix("ff00::/8"), addrNever, "multicast"},
	{netip.MustParsePrefix("127.0.0.0/8"), addrLoopback, "loopback"},
	{netip.MustParsePrefix("::1/128"), addrLoopback, "loopback"},
	{netip.MustParsePrefix("::/96"), addrNever, "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), addrPrivate, "private"},
	{netip.MustParsePrefix("172.16.0.0/12"), addrPrivate, "private"},
	{netip.MustParsePrefix("192.168.0.0/16"), addrPrivate, "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), addrPrivate, "shared"},
	{netip.MustParsePrefix("192.0.0.0/24"), addrPrivate, "protocol assignment"},
	{netip.MustParsePrefix("198.18.0.0/15"), addrPrivate, "benchmarking"},
	{netip.MustParsePrefix("fc00::/7"), addrPrivate, "private"},
	{netip.MustParsePrefix("fec0::/10"), addrPrivate, "site-local"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), addrPrivate, "local translation"},
	{netip.MustParsePrefix("2001::/32"), addrNever, "Teredo"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), addrNever, "stateless translation"}, // RFC 2765: the IPv4 address behind it may be any
	{netip.MustParsePrefix("5f00::/16"), addrNever, "segment routing"},
}

// CheckAddr says whether the profile lets the broker connect to an address. It judges what a name resolved to, when the
// connection is made: a name that points elsewhere by then is caught too. IPv4 addresses wrapped in IPv6 ones are unwrapped first.
func (p Profile) CheckAddr(addr netip.Addr) error {
	addr = unwrap(addr)
	if !addr.IsValid() {
		return fmt.Errorf("not an IP address")
	}
	kind, what := judge(addr)
	switch {
	case kind == addrPublic:
		return nil
	case kind == addrNever:
		return fmt.Errorf("%s is a %s address, which no token endpoint has", addr, what)
	case p.AllowPrivate, kind == addrLoopback && p.InsecureLoopback:
		return nil
	}
	return fmt.Errorf("%s is a %s address; set allow_private: true if the server is your own", addr, what)
}

func judge(addr netip.Addr) (addrKind, string) {
	if behind, ok := translated(addr); ok {
		if kind, what := judge(behind); kind == addrNever {
			return kind, what
		}
	}
	for _, row := range addrTable {
		if row.block.Contains(addr) {
			return row.kind, row.what
		}
	}
	return addrPublic, ""
}

// translated is the IPv4 address that a translator of one's own makes of an address (RFC 8215), in the usual form with 96 bits before it.
// What lies behind one may be private, too, but never what no setting allows.
func translated(addr netip.Addr) (netip.Addr, bool) {
	if !netip.MustParsePrefix("64:ff9b:1::/48").Contains(addr) {
		return addr, false
	}
	b := addr.As16()
	return netip.AddrFrom4([4]byte(b[12:])), b[12] != 0 // no translator leads to 0.0.0.0/8
}

// unwrap returns the IPv4 address within an IPv4-mapped (RFC 4291), NAT64 (RFC 6052) or 6to4 (RFC 3056) address.
func unwrap(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() {
		return addr
	}
	b := addr.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case netip.MustParsePrefix("2002::/16").Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}
