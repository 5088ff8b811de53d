package listener

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// maxFields is how many fields the head of a short request may have.
const maxFields = 64

// A request is what is on a connection when it is a short one: HTTP/1.1, the whole of it there, head and body, and nothing in
// it that asks for more than an answer. Every other is net/http's, from its first byte.
type request struct {
	method, target, host string
	header               http.Header
	length               int  // of the body, which follows the head
	close                bool // the client wants no more than this answer
}

// parse reads the first request in b. size is that of its head; 0: the head's end is not there yet. Not ok: not a short one.
func (r *request) parse(b []byte) (size int, ok bool) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, true
	}
	text := string(b[:end])
	line, rest, _ := strings.Cut(text, "\r\n")
	if !r.parseLine(line) {
		return 0, false
	}
	n := strings.Count(rest, "\r\n") + 1
	if rest == "" || n > maxFields {
		return 0, false
	}
	r.header = make(http.Header, n)
	values := make([]string, 0, n) // of all fields in one piece
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, found := strings.Cut(line, ":")
		if !found || !isToken(name) || !isValue(value) {
			return 0, false
		}
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")
		if !r.take(name, value) {
			return 0, false
		}
		if name == "Host" {
			continue
		}
		if prior := r.header[name]; prior != nil {
			r.header[name] = append(prior, value)
			continue
		}
		values = append(values, value)
		r.header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	if p := r.header["Pragma"]; len(p) > 0 && p[0] == "no-cache" && r.header["Cache-Control"] == nil {
		r.header["Cache-Control"] = []string{"no-cache"} // as net/http does (RFC 9111 §5.4)
	}
	return end + 4, r.host != ""
}

func (r *request) parseLine(line string) bool {
	method, rest, _ := strings.Cut(line, " ")
	target, proto, _ := strings.Cut(rest, " ")
	if proto != "HTTP/1.1" || method == "" || method == http.MethodConnect || !strings.HasPrefix(target, "/") {
		return false
	}
	for i := range len(method) {
		if c := method[i]; c < 'A' || c > 'Z' {
			return false
		}
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	r.method, r.target = method, target
	return true
}

// take looks at a field. False: one that makes the request another than a short one.
func (r *request) take(name, value string) bool {
	switch name {
	case "Host":
		if r.host != "" || value == "" || strings.Trim(value, hostChars) != "" {
			return false
		}
		r.host = value
	case "Content-Length":
		if r.header[name] != nil || value == "" || len(value) > 5 {
			return false
		}
		for i := range len(value) {
			if value[i] < '0' || value[i] > '9' {
				return false
			}
			r.length = 10*r.length + int(value[i]-'0')
		}
	case "Connection":
		switch {
		case strings.EqualFold(value, "close"):
			r.close = true
		case !strings.EqualFold(value, "keep-alive"):
			return false
		}
	case "Transfer-Encoding", "Trailer", "Upgrade", "Expect", "Http2-Settings":
		return false
	}
	return true
}

const hostChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

// url is the target's.
func (r *request) url() (*url.URL, error) {
	for i := range len(r.target) {
		switch c := r.target[i]; {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~':
		case c == '/' && (i != 1):
		case c == '?':
			return &url.URL{Path: r.target[:i], RawQuery: r.target[i+1:], ForceQuery: i+1 == len(r.target)}, nil
		default:
			return url.ParseRequestURI(r.target)
		}
	}
	return &url.URL{Path: r.target}, nil
}

// isToken: RFC 9110 §5.6.2.
func isToken(s string) bool {
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

// isValue: no control characters but tabs (RFC 9110 §5.5).
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
