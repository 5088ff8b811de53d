package listener

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

type connKey struct{}

// withConn lets a request find its connection.
func withConn(ctx context.Context, nc net.Conn) context.Context {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if c, ok := nc.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// Authorized reports whether a request came straight from a proxy whose X-Forwarded-* headers are believed. It may be
// asked in every handler behind a Listener, of that Listener's own requests.
func Authorized(r *http.Request) bool {
	c := connOf(r)
	return c != nil && c.authorized()
}

// Connected returns when the connection of a request was made; the zero time if that did not come through a Listener.
func Connected(r *http.Request) time.Time {
	c := connOf(r)
	if c == nil {
		return time.Time{}
	}
	return c.since
}

// settleClient makes Request.RemoteAddr the client's, of a request that an authorised proxy passes on, and takes off the
// headers that named it: whoever needs them next makes them anew from RemoteAddr. Forwarded goes too, since a proxy that
// writes X-Forwarded-For passes on what the client wrote there.
func (s *Sources) settleClient(r *http.Request) {
	if client := s.client(r.Header["X-Forwarded-For"]); client.IsValid() {
		r.RemoteAddr = netip.AddrPortFrom(client, 0).String() // its port is not known
	}
	delete(r.Header, "X-Forwarded-For")
	delete(r.Header, "Forwarded")
}

// client is the last hop that is no authorised proxy; if all are, the first one. What cannot be read ends the chain: the
// hop before counts. The zero Addr: nobody is named.
func (s *Sources) client(values []string) (client netip.Addr) {
	for i := len(values) - 1; i >= 0; i-- {
		rest := values[i]
		for {
			cut := strings.LastIndexByte(rest, ',')
			hop, ok := parseHop(strings.TrimSpace(rest[cut+1:]))
			if !ok {
				return client
			}
			client = hop
			if !s.hasIP(hop) {
				return client
			}
			if cut < 0 {
				break
			}
			rest = rest[:cut]
		}
	}
	return client
}

// parseHop reads an address as proxies write it: alone, in brackets, or with a port.
func parseHop(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		with, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = with.Addr()
	}
	return addr.Unmap().WithZone(""), true
}
