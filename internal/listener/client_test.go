package listener

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func sourcesOf(texts ...string) Sources {
	var s Sources
	for _, text := range texts {
		if text == "unix" {
			s.Local = true
			continue
		}
		s.Prefixes = append(s.Prefixes, netip.MustParsePrefix(text))
	}
	return s
}

// X-Forwarded-For from an authorised proxy: from the right, up to the first hop that is none.
func TestSettleClient(t *testing.T) {
	const proxy = "10.0.0.1:5000"
	authorized := sourcesOf("10.0.0.0/8", "fd00::/8")
	for _, tc := range []struct {
		name string
		xff  []string
		want string
	}{
		{"none", nil, proxy},
		{"one", []string{"192.0.2.7"}, "192.0.2.7:0"},
		{"spoofed before it", []string{"127.0.0.1, 192.0.2.7"}, "192.0.2.7:0"},
		{"through two proxies", []string{"192.0.2.7, 10.9.9.9"}, "192.0.2.7:0"},
		{"spoofed before two proxies", []string{"198.51.100.1,192.0.2.7,10.9.9.9,fd00::2"}, "192.0.2.7:0"},
		{"a claim to be a proxy", []string{"10.1.1.1, 192.0.2.7"}, "192.0.2.7:0"},
		{"proxies alone", []string{"10.7.7.7, 10.9.9.9"}, "10.7.7.7:0"},
		{"several headers", []string{"198.51.100.1", "192.0.2.7", "10.9.9.9"}, "192.0.2.7:0"},
		{"with a port", []string{"192.0.2.7:4711"}, "192.0.2.7:0"},
		{"IPv6", []string{"2001:db8::7"}, "[2001:db8::7]:0"},
		{"IPv6 in brackets", []string{"[2001:db8::7]"}, "[2001:db8::7]:0"},
		{"IPv6 with a port", []string{"[2001:db8::7]:4711"}, "[2001:db8::7]:0"},
		{"IPv4 in IPv6", []string{"::ffff:192.0.2.7"}, "192.0.2.7:0"},
		{"IPv4 in IPv6 of a proxy", []string{"192.0.2.7, ::ffff:10.0.0.3"}, "192.0.2.7:0"},
		{"zone", []string{"fe80::1%eth0"}, "[fe80::1]:0"},
		{"unreadable", []string{"unknown"}, proxy},
		{"unreadable behind", []string{"192.0.2.7, unknown"}, proxy},
		{"unreadable before", []string{"unknown, 10.9.9.9"}, "10.9.9.9:0"},
		{"empty", []string{""}, proxy},
		{"commas", []string{strings.Repeat(",", 1000)}, proxy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: proxy, Header: http.Header{"Forwarded": {"for=127.0.0.1"}, "X-Forwarded-Proto": {"https"}}}
			if tc.xff != nil {
				r.Header["X-Forwarded-For"] = tc.xff
			}
			authorized.settleClient(r)
			if r.RemoteAddr != tc.want {
				t.Errorf("%q, want %q", r.RemoteAddr, tc.want)
			}
			if len(r.Header) != 1 || r.Header.Get("X-Forwarded-Proto") != "https" {
				t.Errorf("headers %v", r.Header)
			}
		})
	}
}

func FuzzSettleClient(f *testing.F) {
	f.Add("192.0.2.7, 10.0.0.1", "[::1]:80,,x")
	f.Fuzz(func(t *testing.T, a, b string) {
		authorized := sourcesOf("10.0.0.0/8")
		r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": {a, b}}}
		authorized.settleClient(r)
		if addr, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || addr.Addr().Zone() != "" || len(r.Header) != 0 {
			t.Fatalf("%q, %v", r.RemoteAddr, r.Header)
		}
	})
}
