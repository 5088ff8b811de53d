package listener

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// answerRoom is how much of an answer's body is gathered before it leaves, unless the handler flushes.
	answerRoom = 4 << 10

	// together is up to where a larger piece is copied behind what was gathered, and not sent by itself.
	together = 64 << 10
)

// response is the http.ResponseWriter of a short request. What a handler can see of it is net/http's: the head is taken when it is
// written, an answer that is over before it was sent has a Content-Length, any other is chunked.
type response struct {
	f      *front
	req    *http.Request
	header http.Header

	status    int // 0: no head yet
	length    int64
	written   int64
	close     bool // the connection ends with this answer
	typed     bool
	dated     bool
	sent      bool // the head is out
	chunked   bool
	hijacked  bool
	failed    error
	declared  []string // trailers
	out, body []byte   // what is to be sent; what is gathered of the body
}

func (w *response) Header() http.Header { return w.header }

// WriteHeader notes the head. That of an informational answer leaves at once.
func (w *response) WriteHeader(status int) {
	if w.status != 0 || w.hijacked {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		w.out = appendStatus(w.out, status)
		for name, values := range w.header {
			if name != "Content-Length" && name != "Transfer-Encoding" {
				w.out = appendField(w.out, name, values)
			}
		}
		w.out = append(w.out, "\r\n"...)
		w.push(nil)
		return
	}
	w.status, w.length = status, -1
	w.out = appendStatus(w.out, status)
	bodied := bodyAllowed(status)
	for name, values := range w.header {
		switch name {
		case "Content-Length":
			if n, err := strconv.ParseInt(first(values), 10, 64); err == nil && n >= 0 && bodied {
				w.length = n
			}
			continue
		case "Transfer-Encoding":
			continue
		case "Connection":
			w.close = w.close || strings.EqualFold(first(values), "close")
			continue
		case "Content-Type":
			w.typed = true
			if status == http.StatusNotModified {
				continue
			}
		case "Content-Encoding":
			w.typed = w.typed || first(values) != ""
		case "Date":
			w.dated = true
		case "Trailer":
			for _, v := range values {
				for t := range strings.SplitSeq(v, ",") {
					w.declared = append(w.declared, http.CanonicalHeaderKey(strings.TrimSpace(t)))
				}
			}
		}
		if !strings.HasPrefix(name, http.TrailerPrefix) {
			w.out = appendField(w.out, name, values)
		}
	}
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// bodyAllowed: RFC 9110 §6.4.1.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

func (w *response) Write(p []byte) (int, error) {
	switch {
	case w.hijacked:
		return 0, http.ErrHijacked
	case w.status == 0:
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case !bodyAllowed(w.status):
		return 0, http.ErrBodyNotAllowed
	}
	if w.written += int64(len(p)); w.length >= 0 && w.written > w.length {
		return 0, http.ErrContentLength
	}
	if len(w.body)+len(p) <= answerRoom {
		w.body = append(w.body, p...)
		return len(p), nil
	}
	w.emit(p, false)
	if w.failed != nil {
		return 0, w.failed
	}
	return len(p), nil
}

func (w *response) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// emit sends what was gathered, and p.
func (w *response) emit(p []byte, last bool) {
	n := len(w.body) + len(p)
	if !w.sent {
		w.endHead(p, last)
	}
	if w.req.Method == http.MethodHead {
		w.body = w.body[:0]
		w.push(nil)
		return
	}
	if w.chunked && n > 0 {
		w.out = strconv.AppendInt(w.out, int64(n), 16)
		w.out = append(w.out, "\r\n"...)
	}
	w.out = append(w.out, w.body...)
	w.body = w.body[:0]
	if len(p) > 0 && len(w.out)+len(p) > together {
		w.push(nil)
		w.push(p)
	} else {
		w.out = append(w.out, p...)
	}
	if w.chunked && n > 0 {
		w.out = append(w.out, "\r\n"...)
	}
	if last && w.chunked {
		w.out = w.appendTrailers(append(w.out, "0\r\n"...))
	}
	w.push(nil)
}

// push writes p, or what is to be sent.
func (w *response) push(p []byte) {
	if p == nil {
		p, w.out = w.out, w.out[:0]
	}
	if w.failed == nil && len(p) > 0 {
		_, w.failed = w.f.c.Write(p)
	}
}

// endHead says how the body is told from what follows, once that is known.
func (w *response) endHead(p []byte, last bool) {
	w.sent = true
	bodied := bodyAllowed(w.status)
	trailers := len(w.declared) > 0 || w.hasTrailers()
	if bodied && !w.typed && len(w.body)+len(p) > 0 {
		sniffed := w.body
		if len(sniffed) == 0 {
			sniffed = p
		}
		w.out = append(append(append(w.out, "Content-Type: "...), http.DetectContentType(sniffed)...), "\r\n"...)
	}
	if last && bodied && w.length < 0 && !trailers && (w.written > 0 || w.req.Method != http.MethodHead) {
		w.length = w.written
	}
	switch {
	case !bodied:
	case w.length >= 0:
		w.out = append(strconv.AppendInt(append(w.out, "Content-Length: "...), w.length, 10), "\r\n"...)
	case w.req.Method == http.MethodHead:
	default:
		w.chunked = true
		w.out = append(w.out, "Transfer-Encoding: chunked\r\n"...)
	}
	if !w.dated {
		w.out = append(append(append(w.out, "Date: "...), date()...), "\r\n"...)
	}
	w.close = w.close || w.req.Close || w.f.l.closing.Load()
	if w.close {
		w.out = append(w.out, "Connection: close\r\n"...)
	}
	w.out = append(w.out, "\r\n"...)
}

func (w *response) hasTrailers() bool {
	for name := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

func (w *response) appendTrailers(b []byte) []byte {
	for name, values := range w.header {
		if t, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			b = appendField(b, http.CanonicalHeaderKey(t), values)
		} else if slices.Contains(w.declared, name) {
			b = appendField(b, name, values)
		}
	}
	return append(b, "\r\n"...)
}

// Flush sends what there is.
func (w *response) Flush() { _ = w.FlushError() }

func (w *response) FlushError() error {
	if w.hijacked {
		return http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.sent || len(w.body) > 0 {
		w.emit(nil, false)
	}
	return w.failed
}

// finish sends the rest. False: the connection cannot be used again.
func (w *response) finish() bool {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.sent || len(w.body) > 0 || w.chunked {
		w.emit(nil, true)
	}
	short := w.length >= 0 && w.written != w.length && w.req.Method != http.MethodHead
	return w.failed == nil && !w.close && !short
}

func (w *response) SetReadDeadline(t time.Time) error  { return w.f.c.SetReadDeadline(t) }
func (w *response) SetWriteDeadline(t time.Time) error { return w.f.c.SetWriteDeadline(t) }
func (w *response) EnableFullDuplex() error            { return nil }

// Hijack gives the connection away.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	if w.sent {
		return nil, nil, errors.New("listener: the answer has begun")
	}
	w.hijacked = true
	w.f.release()
	_ = w.f.c.SetDeadline(time.Time{})
	return w.f.c, bufio.NewReadWriter(bufio.NewReader(w.f.c), bufio.NewWriter(w.f.c)), nil
}

func appendStatus(b []byte, status int) []byte {
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10)
	text := http.StatusText(status)
	if text == "" {
		text = "status code " + strconv.Itoa(status)
	}
	return append(append(append(b, ' '), text...), "\r\n"...)
}

// appendField leaves out what is no field's name, and keeps a value to its line, as net/http does.
func appendField(b []byte, name string, values []string) []byte {
	if !isToken(name) {
		return b
	}
	for _, v := range values {
		b = append(append(b, name...), ": "...)
		for i := range len(v) {
			if c := v[i]; c == '\r' || c == '\n' {
				b = append(b, ' ')
			} else {
				b = append(b, c)
			}
		}
		b = append(b, "\r\n"...)
	}
	return b
}

var dates struct {
	sync.Mutex
	second int64
	text   string
}

// date is now, as a head has it.
func date() string {
	now := time.Now()
	dates.Lock()
	defer dates.Unlock()
	if s := now.Unix(); s != dates.second {
		dates.second, dates.text = s, now.UTC().Format(http.TimeFormat)
	}
	return dates.text
}
