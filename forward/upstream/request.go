package upstream

import (
	"net/http"
	"strconv"
	"strings"
)

// dropped reports the hop-by-hop fields of a request or an answer (RFC 9110 §7.6.1), besides those that Connection lists.
func dropped(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
}

// hasToken reports whether one of the comma-separated values is the token.
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

// upgradeOf is the protocol that a request asks to change to, "" for none. h2c is refused: it would smuggle requests past
// this node.
func upgradeOf(r *http.Request) string {
	up := r.Header["Upgrade"]
	if r.ProtoMajor != 1 || len(up) == 0 || !hasToken(r.Header["Connection"], "upgrade") || strings.EqualFold(up[0], "h2c") {
		return ""
	}
	return up[0]
}

// requestURI is path and query as the client sent them.
func requestURI(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") || r.RequestURI == "*" {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// appendRequest writes the head for HTTP/1.1. Of the body, length is -1 for one that is chunked.
func appendRequest(b []byte, r *http.Request, length int64, upgrade string) []byte {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, requestURI(r)...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)
	listed := r.Header["Connection"]
	for name, values := range r.Header {
		if dropped(name) || name == "Content-Length" || name == "Expect" || name == "Host" || len(listed) > 0 && hasToken(listed, name) {
			continue
		}
		b = appendField(b, name, values)
	}
	switch {
	case upgrade != "":
		b = appendField(b, "Connection", []string{"Upgrade"})
		b = appendField(b, "Upgrade", []string{upgrade})
	case hasToken(r.Header["Te"], "trailers"):
		b = append(b, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	switch {
	case length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for name := range r.Trailer {
			if token(name) {
				b = append(append(append(b, "Trailer: "...), name...), "\r\n"...)
			}
		}
	case length > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendField leaves out what cannot stand in a head: net/http lets no such thing in, and nobody else may smuggle it.
func appendField(b []byte, name string, values []string) []byte {
	if !token(name) {
		return b
	}
	for _, v := range values {
		if !oneLine(v) {
			continue
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, v...)
		b = append(b, "\r\n"...)
	}
	return b
}

// token: RFC 9110 §5.6.2.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_':
		case strings.IndexByte("!#$%&'*+.^`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

func oneLine(s string) bool {
	for i := range len(s) {
		if c := s[i]; c == '\r' || c == '\n' || c == 0 {
			return false
		}
	}
	return true
}
