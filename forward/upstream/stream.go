package upstream

import (
	"encoding/binary"
	"net/http"
	"net/netip"
)

// serveStream passes a byte stream on: the request is the client's connection, to be taken over. Its RemoteAddr is the
// client's address, its Host the one that the client connected to.
func (u *Upstream) serveStream(w http.ResponseWriter, r *http.Request) {
	u.pool.mu.Lock()
	full := u.pool.open >= u.cfg.MaxConns
	if !full {
		u.pool.open++
	}
	u.pool.mu.Unlock()
	if full {
		u.unreachable(w, r, errBusy)
		return
	}
	defer u.pool.release()
	app, err := u.dial(r.Context())
	if err != nil {
		u.unreachable(w, r, err)
		return
	}
	if u.cfg.ProxyProtocol {
		if _, err := app.Write(proxyHeader(r.RemoteAddr, r.Host)); err != nil {
			_ = app.Close()
			u.unreachable(w, r, err)
			return
		}
	}
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = app.Close()
		u.malformed(w, r, err)
		return
	}
	t := &tunnel{u: u, ctx: r.Context(), client: client, app: app, fromClient: buffered(rw.Reader)}
	t.run()
}

// proxyHeader is the PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt §2.2), for a client at one address
// that connected to the other. Where they cannot be told, it says LOCAL, and the receiver uses the connection's own.
func proxyHeader(client, server string) []byte {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n")
	from, err1 := netip.ParseAddrPort(client)
	to, err2 := netip.ParseAddrPort(server)
	if err1 != nil || err2 != nil {
		return append(b, 0x20, 0x00, 0, 0)
	}
	src, dst := from.Addr().Unmap(), to.Addr().Unmap()
	if src.Is4() && dst.Is4() {
		b = append(b, 0x21, 0x11, 0, 12)
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	} else {
		s, d := src.As16(), dst.As16()
		b = append(b, 0x21, 0x21, 0, 36)
		b = append(append(b, s[:]...), d[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, from.Port())
	return binary.BigEndian.AppendUint16(b, to.Port())
}
