package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// maxPlainFields is how many fields an answer's head may have to be read the short way.
const maxPlainFields = 40

// A plainHead is the head of the answer that nearly every request gets: HTTP/1.1, final, all of it there, with a length and nothing
// unusual. It is read in one piece; every other answer is net/http's to read, from its first byte.
type plainHead struct {
	status int
	length int64
	close  bool
	n      int
	fields [maxPlainFields]struct{ name, value string }
}

// plain reads the answer's head if it is such a one; then it is taken off the connection. Otherwise nothing is.
func (x *exchange) plain(h *plainHead) bool {
	if x.r.Method == http.MethodHead {
		return false
	}
	if _, err := x.c.br.Peek(1); err != nil {
		return false // which net/http will see too
	}
	b, _ := x.c.br.Peek(x.c.br.Buffered())
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return false
	}
	if !h.parse(string(b[:end])) {
		return false
	}
	_, _ = x.c.br.Discard(end + 4)
	return true
}

// parse reads status line and fields, without the blank line. False: not plain.
func (h *plainHead) parse(s string) bool {
	line, rest, _ := strings.Cut(s, "\r\n")
	if len(line) < 12 || line[:9] != "HTTP/1.1 " || len(line) > 12 && line[12] != ' ' || !visible(line) {
		return false
	}
	status, err := strconv.Atoi(line[9:12])
	if err != nil || status < 200 || status > 599 || status == http.StatusNoContent || status == http.StatusNotModified {
		return false
	}
	h.status, h.length = status, -1
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || !token(name) || h.n == maxPlainFields || !visible(value) {
			return false
		}
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")
		if !h.take(name, value) {
			return false
		}
	}
	return h.length >= 0
}

// visible reports whether a field's value has no control characters but tabs.
func visible(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// take notes a field. False: one that changes how the rest is to be read.
func (h *plainHead) take(name, value string) bool {
	switch name {
	case "Content-Length":
		if h.length >= 0 || value == "" || len(value) > 18 || strings.Trim(value, "0123456789") != "" {
			return false
		}
		h.length, _ = strconv.ParseInt(value, 10, 64) // digits, not too many
	case "Connection":
		switch {
		case strings.EqualFold(value, "close"):
			h.close = true
		case !strings.EqualFold(value, "keep-alive"):
			return false
		}
		return true
	case "Transfer-Encoding", "Trailer", "Upgrade", "Proxy-Authenticate":
		return false
	default:
		if dropped(name) || strings.HasPrefix(name, "X-Locum-") {
			return true
		}
	}
	h.fields[h.n].name, h.fields[h.n].value = name, value
	h.n++
	return true
}

// header writes the fields down.
func (h *plainHead) header(dst http.Header) {
	values := make([]string, h.n)
	typed := false
	for i := range h.n {
		f := &h.fields[i]
		values[i] = f.value
		typed = typed || f.name == "Content-Type"
		own := values[i : i+1 : i+1]
		for j := range i {
			if h.fields[j].name == f.name { // once more: the field has several values
				own = append(dst[f.name], f.value)
				break
			}
		}
		dst[f.name] = own
	}
	if !typed {
		dst["Content-Type"] = nil // it is the application's to say: nobody must guess
	}
}

// relayPlain passes such an answer on.
func (x *exchange) relayPlain(h *plainHead) {
	h.header(x.w.Header())
	x.w.WriteHeader(h.status)
	if err := x.relayLength(h.length); err != nil {
		x.u.log.Debug("answer broken off", "error", err)
		panic(http.ErrAbortHandler) // the client must not take it for whole
	}
	x.keep = !h.close && x.r.Context().Err() == nil
}

// relayLength passes on a body of n bytes.
func (x *exchange) relayLength(n int64) error {
	if n <= int64(x.c.br.Buffered()) {
		if n == 0 {
			return nil
		}
		b, _ := x.c.br.Peek(int(n)) // it is there
		_, err := x.w.Write(b)
		_, _ = x.c.br.Discard(int(n))
		return clientError(err)
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for n > 0 {
		k, err := x.c.br.Read((*buf)[:min(n, int64(len(*buf)))])
		n -= int64(k)
		if k > 0 {
			if _, werr := x.w.Write((*buf)[:k]); werr != nil {
				return clientError(werr)
			}
		}
		if err != nil && n > 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}
