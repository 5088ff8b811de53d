package listener

import (
	"net"
	"net/netip"
	"slices"
)

// Sources are the addresses that are authorised to say for whom they speak.
type Sources struct {
	Prefixes []netip.Prefix

	// Local authorises whoever can open the Unix socket, where that is what is listened on.
	Local bool
}

// has reports whether the other end of a connection is one of them.
func (s *Sources) has(addr net.Addr) bool {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return s.hasIP(a.AddrPort().Addr())
	case *net.UnixAddr:
		return s.Local
	}
	return false
}

func (s *Sources) hasIP(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}
