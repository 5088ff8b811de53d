package listener

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol, versions 1 and 2, as its receiver reads it:
// https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt

const (
	maxProxyV1     = 107     // bytes, with CR LF
	maxProxyHeader = 4 << 10 // bytes; of version 2 the specification allows 64 KiB, and nobody sends them
	proxyV2Fixed   = 16
)

var (
	proxyV1Start = []byte("PROXY ")
	proxyV2Start = []byte("\r\n\r\n\x00\r\nQUIT\n")

	errProxyMore = errors.New("the PROXY header is not complete")
	errNoProxy   = errors.New("the connection does not begin with a PROXY header")
	crc32c       = crc32.MakeTable(crc32.Castagnoli)
)

// parseProxy reads the header that b begins with: who the client is, and how many bytes the header has. A source that is not
// valid means that the connection is the sender's own (a health check), or that it does not know the client.
// errProxyMore: b is too short to tell, and shorter than maxProxyHeader.
func parseProxy(b []byte) (source netip.AddrPort, n int, err error) {
	switch {
	case begins(b, proxyV2Start):
		if len(b) < proxyV2Fixed {
			return source, 0, errProxyMore
		}
		return parseProxyV2(b)
	case begins(b, proxyV1Start):
		return parseProxyV1(b)
	}
	return source, 0, errNoProxy
}

// begins reports whether b begins as prefix does, as far as it goes.
func begins(b, prefix []byte) bool {
	n := min(len(b), len(prefix))
	return bytes.Equal(b[:n], prefix[:n])
}

func parseProxyV1(b []byte) (source netip.AddrPort, n int, err error) {
	end := bytes.IndexByte(b[:min(len(b), maxProxyV1)], '\n')
	switch {
	case end < 0 && len(b) < maxProxyV1:
		return source, 0, errProxyMore
	case end < 0 || b[end-1] != '\r':
		return source, 0, errors.New("the PROXY header's line does not end as it must")
	}
	fields := strings.Split(string(b[:end-1]), " ")
	kind := ""
	if len(fields) > 1 {
		kind = fields[1]
	}
	switch {
	case kind == "UNKNOWN": // what follows is to be ignored
		return source, end + 1, nil
	case kind != "TCP4" && kind != "TCP6", len(fields) != 6:
		return source, 0, errors.New("the PROXY header's line is malformed")
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, err := netip.ParseAddr(fields[2+i])
		if err != nil || addr.Is4() != (kind == "TCP4") || addr.Zone() != "" {
			return source, 0, fmt.Errorf("the PROXY header has no %s address", kind)
		}
		port, ok := proxyPort(fields[4+i])
		if !ok {
			return source, 0, errors.New("the PROXY header has a port that is none")
		}
		ends[i] = netip.AddrPortFrom(addr.Unmap(), port)
	}
	return ends[0], end + 1, nil
}

// proxyPort wants decimal digits without a sign or leading zeros.
func proxyPort(text string) (uint16, bool) {
	port, err := strconv.ParseUint(text, 10, 16)
	return uint16(port), err == nil && strconv.FormatUint(port, 10) == text
}

func parseProxyV2(b []byte) (source netip.AddrPort, n int, err error) {
	version, command := b[12]>>4, b[12]&0xf
	family := b[13]
	n = proxyV2Fixed + int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case version != 2:
		return source, 0, fmt.Errorf("the PROXY header has version %d", version)
	case command > 1:
		return source, 0, fmt.Errorf("the PROXY header has command %d", command)
	case n > maxProxyHeader:
		return source, 0, fmt.Errorf("the PROXY header has %d bytes; %d are taken", n, maxProxyHeader)
	case len(b) < n:
		return source, 0, errProxyMore
	case command == 0 || family == 0: // LOCAL, or an unspecified family: the rest is to be ignored
		return source, n, nil
	}
	var size int
	body := b[proxyV2Fixed:n]
	switch family {
	case 0x11: // TCP over IPv4
		size = 12
		if len(body) >= size {
			source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:]))
		}
	case 0x21: // TCP over IPv6
		size = 36
		if len(body) >= size {
			source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)).Unmap(), binary.BigEndian.Uint16(body[32:]))
		}
	case 0x31: // a Unix stream socket: a client without an address
		size = 216
	default:
		return source, 0, fmt.Errorf("the PROXY header has family and protocol %#02x", family)
	}
	if len(body) < size {
		return netip.AddrPort{}, 0, errors.New("the PROXY header is too short for its addresses")
	}
	if err := checkProxyTLVs(b[:n], proxyV2Fixed+size); err != nil {
		return netip.AddrPort{}, 0, err
	}
	return source, n, nil
}

// checkProxyTLVs walks what follows the addresses, and verifies the checksum if there is one.
func checkProxyTLVs(header []byte, at int) error {
	const typeCRC32C = 0x03
	for at < len(header) {
		if len(header)-at < 3 {
			return errors.New("the PROXY header ends within a field")
		}
		kind, value := header[at], at+3
		at = value + int(binary.BigEndian.Uint16(header[at+1:]))
		if at > len(header) {
			return errors.New("the PROXY header ends within a field")
		}
		if kind != typeCRC32C {
			continue
		}
		if at-value != 4 {
			return errors.New("the PROXY header's checksum is malformed")
		}
		sum := crc32.Update(0, crc32c, header[:value])
		sum = crc32.Update(sum, crc32c, []byte{0, 0, 0, 0})
		sum = crc32.Update(sum, crc32c, header[at:])
		if sum != binary.BigEndian.Uint32(header[value:]) {
			return errors.New("the PROXY header's checksum is wrong")
		}
	}
	return nil
}
