package forward

import (
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
)

const (
	headerRequestID = "X-Request-Id"
	headerNode      = "X-Locum-Node"
	headerTerm      = "X-Locum-Term"
	headerForwarder = "X-Locum-Forwarded-By"
	headerNoForward = "X-Locum-No-Request-Forwarding"
	headerVaultNo   = "X-Vault-No-Request-Forwarding"
	headerCert      = "Client-Cert" // RFC 9440; Client-Cert-Chain begins with it
)

// scrub takes from a client's request what it may not say, and reports whether the client wants to be
// redirected. It runs once, on the node that the client is connected to.
func scrub(h http.Header, trusted bool) (noForward bool) {
	for name, values := range h {
		switch {
		case strings.HasPrefix(name, "X-Locum-"):
			if name == headerNoForward && len(values) > 0 && values[0] != "" {
				noForward = true
			}
			delete(h, name)
		case name == headerVaultNo:
			noForward = noForward || len(values) > 0 && values[0] != ""
			delete(h, name)
		case !trusted && (strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" || strings.HasPrefix(name, headerCert)):
			delete(h, name)
		}
	}
	return noForward
}

// setForwarded extends X-Forwarded-For by the client's address, if it has one (on a Unix socket it has not), and sets the
// other two unless a trusted proxy has. A certificate that the client has shown, and that was verified, goes into Client-Cert as
// RFC 9440 has it.
func setForwarded(r *http.Request) {
	h := r.Header
	values := make([]string, 3) // of all three in one piece: this is on the way of every request
	if ip := clientIP(r.RemoteAddr); isIP(ip) {
		if prior := h["X-Forwarded-For"]; len(prior) > 0 {
			ip = strings.Join(prior, ", ") + ", " + ip
		}
		values[0] = ip
		h["X-Forwarded-For"] = values[0:1:1]
	}
	if len(h["X-Forwarded-Host"]) == 0 {
		values[1] = r.Host
		h["X-Forwarded-Host"] = values[1:2:2]
	}
	if len(h["X-Forwarded-Proto"]) == 0 {
		proto := "http"
		if r.TLS != nil {
			proto = "https"
		}
		values[2] = proto
		h["X-Forwarded-Proto"] = values[2:3:3]
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		h[headerCert] = []string{":" + base64.StdEncoding.EncodeToString(r.TLS.VerifiedChains[0][0].Raw) + ":"}
	}
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// requestID takes over the client's, if it can stand in a log, or makes one.
func requestID(h http.Header) string {
	if v := h[headerRequestID]; len(v) == 1 && validID(v[0]) {
		return v[0]
	}
	var b [16]byte
	x, y := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		b[i], b[8+i] = byte(x>>(8*i)), byte(y>>(8*i))
	}
	return hex.EncodeToString(b[:])
}

func validID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// upgradeOf is the protocol that an HTTP/1 request asks to change to, "" for none. h2c is refused: it
// would smuggle requests past this node.
func upgradeOf(h http.Header) string {
	up := h["Upgrade"]
	if len(up) == 0 || !hasToken(h["Connection"], "upgrade") || strings.EqualFold(up[0], "h2c") {
		return ""
	}
	return up[0]
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// dropRequestField names the hop-by-hop fields, besides those that Connection lists.
func dropRequestField(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
}

// dropResponseField names what an answer's head may not say on its way: hop-by-hop fields, and those that
// the nodes themselves set.
func dropResponseField(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade",
		headerNode, headerTerm, headerForwarder:
		return true
	}
	return false
}

// appendRequestHeader writes the fields that travel. An upgrade keeps the two that ask for it, and
// "TE: trailers" stays, which gRPC insists on.
func appendRequestHeader(b []byte, h http.Header) (_ []byte, ok bool) {
	listed := h["Connection"]
	n, start := 0, len(b)
	for name, values := range h {
		if dropRequestField(name) {
			if name == "Te" && hasToken(values, "trailers") {
				b = appendField1(b, "Te", "trailers")
			}
			continue
		}
		if len(listed) > 0 && hasToken(listed, name) {
			continue
		}
		n += 1 + len(values)
		b = appendField(b, name, values)
	}
	if up := upgradeOf(h); up != "" {
		b = appendField1(b, "Connection", "Upgrade")
		b = appendField1(b, "Upgrade", up)
	}
	return b, fits(n, len(b)-start)
}
