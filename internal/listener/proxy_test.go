package listener

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"
)

// v2 makes a header of version 2.
func v2(command, family byte, body []byte) []byte {
	b := append([]byte{}, proxyV2Start...)
	b = append(b, 0x20|command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

func v2tcp4(src string, tlvs ...byte) []byte {
	from := netip.MustParseAddrPort(src)
	ip := from.Addr().As4()
	body := append(ip[:], 10, 0, 0, 1)
	body = binary.BigEndian.AppendUint16(body, from.Port())
	body = append(body, 0, 80)
	return v2(1, 0x11, append(body, tlvs...))
}

func v2tcp6(src string) []byte {
	from := netip.MustParseAddrPort(src)
	ip := from.Addr().As16()
	body := append(ip[:], make([]byte, 16)...)
	body = binary.BigEndian.AppendUint16(body, from.Port())
	return v2(1, 0x21, append(body, 0, 80))
}

// sealed puts the right checksum into the last four bytes of a header.
func sealed(b []byte) []byte {
	clear(b[len(b)-4:])
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, crc32c))
	return b
}

func TestParseProxy(t *testing.T) {
	cases := []struct {
		name string
		in   []byte
		want string // the source; "": the connection's own; "!…": the error
	}{
		{"v1 IPv4", []byte("PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"), "192.0.2.7:56324"},
		{"v1 IPv6", []byte("PROXY TCP6 2001:db8::7 ::1 1 65535\r\n"), "[2001:db8::7]:1"},
		{"v1 IPv4 in IPv6", []byte("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n"), "192.0.2.7:1"},
		{"v1 unknown", []byte("PROXY UNKNOWN\r\n"), ""},
		{"v1 unknown with words", []byte("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), ""},
		{"v1 longest", []byte("PROXY UNKNOWN" + strings.Repeat(" ", maxProxyV1-len("PROXY UNKNOWN\r\n")) + "\r\n"), ""},
		{"v1 too long", []byte("PROXY UNKNOWN" + strings.Repeat(" ", maxProxyV1) + "\r\n"), "!line does not end"},
		{"v1 without CR", []byte("PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\n"), "!line does not end"},
		{"v1 without kind", []byte("PROXY \r\n"), "!malformed"},
		{"v1 lower case", []byte("PROXY tcp4 192.0.2.7 10.0.0.1 1 2\r\n"), "!malformed"},
		{"v1 two blanks", []byte("PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n"), "!malformed"},
		{"v1 a field too many", []byte("PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n"), "!malformed"},
		{"v1 a field too few", []byte("PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n"), "!malformed"},
		{"v1 wrong family", []byte("PROXY TCP4 ::1 ::2 1 2\r\n"), "!no TCP4 address"},
		{"v1 wrong destination", []byte("PROXY TCP6 ::1 10.0.0.1 1 2\r\n"), "!no TCP6 address"},
		{"v1 zone", []byte("PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n"), "!no TCP6 address"},
		{"v1 no address", []byte("PROXY TCP4 host 10.0.0.1 1 2\r\n"), "!no TCP4 address"},
		{"v1 octal", []byte("PROXY TCP4 192.0.02.7 10.0.0.1 1 2\r\n"), "!no TCP4 address"},
		{"v1 port too high", []byte("PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n"), "!port"},
		{"v1 signed port", []byte("PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n"), "!port"},
		{"v1 leading zero", []byte("PROXY TCP4 192.0.2.7 10.0.0.1 1 02\r\n"), "!port"},
		{"v2 IPv4", v2tcp4("192.0.2.7:56324"), "192.0.2.7:56324"},
		{"v2 IPv6", v2tcp6("[2001:db8::7]:9"), "[2001:db8::7]:9"},
		{"v2 with fields", v2tcp4("192.0.2.7:1", 0x02, 0, 3, 'a', '.', 'b', 0x04, 0, 0), "192.0.2.7:1"},
		{"v2 with checksum", sealed(v2tcp4("192.0.2.7:1", 0x03, 0, 4, 0, 0, 0, 0)), "192.0.2.7:1"},
		{"v2 wrong checksum", v2tcp4("192.0.2.7:1", 0x03, 0, 4, 1, 2, 3, 4), "!checksum is wrong"},
		{"v2 malformed checksum", v2tcp4("192.0.2.7:1", 0x03, 0, 1, 1), "!checksum is malformed"},
		{"v2 field cut", v2tcp4("192.0.2.7:1", 0x02, 0), "!ends within a field"},
		{"v2 field too long", v2tcp4("192.0.2.7:1", 0x02, 0, 9, 'a'), "!ends within a field"},
		{"v2 local", v2(0, 0, nil), ""},
		{"v2 local with anything", v2(0, 0x11, []byte("whatever")), ""},
		{"v2 unspecified", v2(1, 0, []byte("whatever")), ""},
		{"v2 unix", v2(1, 0x31, make([]byte, 216)), ""},
		{"v2 unix too short", v2(1, 0x31, make([]byte, 215)), "!too short"},
		{"v2 IPv4 too short", v2(1, 0x11, make([]byte, 11)), "!too short"},
		{"v2 IPv6 too short", v2(1, 0x21, make([]byte, 35)), "!too short"},
		{"v2 UDP", v2(1, 0x12, make([]byte, 12)), "!family and protocol 0x12"},
		{"v2 command", v2(2, 0x11, make([]byte, 12)), "!command 2"},
		{"v2 longest", v2(0, 0, make([]byte, maxProxyHeader-proxyV2Fixed)), ""},
		{"v2 too long", v2(0, 0, make([]byte, maxProxyHeader-proxyV2Fixed+1)), "!4097 bytes"},
		{"version 3", append(append([]byte{}, proxyV2Start...), 0x31, 0x11, 0, 0), "!version 3"},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), "!does not begin"},
		{"TLS", []byte{0x16, 3, 1, 0, 5}, "!does not begin"},
		{"HTTP/2", []byte("PRI * HTTP/2.0\r\n"), "!does not begin"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			const next = "GET /"
			source, n, err := parseProxy(append(tc.in[:len(tc.in):len(tc.in)], next...))
			want, bad := strings.CutPrefix(tc.want, "!")
			switch {
			case bad:
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("%v, %v; want the error %q", source, err, want)
				}
				return
			case err != nil || n != len(tc.in):
				t.Fatalf("%d of %d bytes, %v", n, len(tc.in), err)
			case want == "" && source.IsValid(), want != "" && source.String() != want:
				t.Errorf("source %v, want %q", source, want)
			}
			for i := range tc.in {
				if _, _, err := parseProxy(tc.in[:i]); !errors.Is(err, errProxyMore) {
					t.Fatalf("the first %d bytes: %v", i, err)
				}
			}
		})
	}
}

// Whatever comes: no panic, never more bytes taken than there are or than the limit, and what is behind a header makes no
// difference to it (P12).
func FuzzParseProxy(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\nGET /"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(v2tcp4("192.0.2.7:1", 0x02, 0, 1, 'x'))
	f.Add(sealed(v2tcp4("192.0.2.7:1", 0x03, 0, 4, 0, 0, 0, 0)))
	f.Add(v2tcp6("[2001:db8::7]:9"))
	f.Add(v2(0, 0, nil))
	f.Add(v2(1, 0x31, make([]byte, 216)))
	f.Fuzz(func(t *testing.T, b []byte) {
		source, n, err := parseProxy(b)
		switch {
		case errors.Is(err, errProxyMore):
			if n != 0 || len(b) >= maxProxyHeader {
				t.Fatalf("asks for more than %d bytes", len(b))
			}
		case err != nil:
			if n != 0 || source.IsValid() {
				t.Fatalf("%v, %d with %v", source, n, err)
			}
		default:
			if n <= 0 || n > len(b) || n > maxProxyHeader || source.IsValid() && source.Addr().Zone() != "" {
				t.Fatalf("%v, %d of %d", source, n, len(b))
			}
			if again, m, err := parseProxy(b[:n]); again != source || m != n || err != nil {
				t.Fatalf("alone: %v, %d, %v", again, m, err)
			}
			if _, _, err := parseProxy(b[:n-1]); !errors.Is(err, errProxyMore) {
				t.Fatalf("without its last byte: %v", err)
			}
		}
	})
}
