package forward

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// answerBuffer is how much of an answer is gathered before it is sent, unless the handler flushes: an
// answer up to this size leaves as one write, with its Content-Length.
const answerBuffer = 16 << 10

// maxDiscard is how much of an unread body is read before an HTTP/1 answer begins, as net/http does for
// clients that send all before they read.
const maxDiscard = 256 << 10

// responseWriter is a forwarded request's answer on the active node. It behaves as net/http's own, and
// asks the lease before anything leaves (P4).
type responseWriter struct {
	s      *served
	header http.Header
	status int

	head          *chunk // the encoded head, from WriteHeader until it is sent
	buf           *chunk // body bytes not yet sent
	contentLength int64  // declared; -1: not
	written       int64
	trailers      []string // declared

	isHead, http1, canHijack   bool
	fullDuplex, sniff, chunked bool
	sent                       bool // the head is out
	hijacked                   bool
	ended                      bool // nothing more may be sent
	tooLong                    bool // the head
}

var errDeclined = errors.New("forward: the request was declined")

func (w *responseWriter) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header, 8)
	}
	return w.header
}

func (w *responseWriter) WriteHeader(status int) {
	if w.hijacked || w.status != 0 {
		w.s.c.r.log.Debug("superfluous WriteHeader", "request_id", w.s.info.ID)
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("forward: invalid status %d", status))
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		w.inform(status)
		return
	}
	w.status = status
	w.encodeHead()
}

// encodeHead writes the head down as it is now: what the handler changes later has no effect, but for
// trailers. Fields that depend on the body are added by sendHead.
func (w *responseWriter) encodeHead() {
	w.head = newChunk(1)
	b := append(w.head.b, make([]byte, frameHeaderLen)...)
	b = binary.AppendUvarint(b, uint64(w.status))
	noBody := !bodyAllowed(w.status)
	fields := 0
	w.sniff = !noBody
	for name, values := range w.header {
		switch name {
		case "Content-Length":
			if noBody && w.status != http.StatusNotModified || !w.declareLength(values) {
				continue
			}
		case "Content-Type":
			w.sniff = false
			if len(values) > 0 && strings.HasPrefix(values[0], "text/event-stream") {
				w.s.run.setEndless()
			}
		case "Content-Encoding":
			w.sniff = w.sniff && len(values) > 0 && values[0] == ""
		case "Trailer":
			for _, v := range values {
				for name := range strings.SplitSeq(v, ",") {
					w.trailers = append(w.trailers, http.CanonicalHeaderKey(strings.TrimSpace(name)))
				}
			}
		case "Transfer-Encoding":
			w.chunked = true
			continue
		default:
			if dropResponseField(name) || isTrailer(name) {
				continue
			}
		}
		fields += 1 + len(values)
		b = appendField(b, name, values)
	}
	w.tooLong = !fits(fields, len(b))
	b = appendField1(b, "X-Locum-Node", w.s.c.r.cfg.Node)
	w.head.b = appendField(b, "X-Locum-Term", w.s.t.termStr)
}

func (w *responseWriter) declareLength(values []string) bool {
	if len(values) == 0 {
		return true
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n < 0 {
		return false
	}
	w.contentLength = n
	return true
}

func isTrailer(name string) bool { return strings.HasPrefix(name, http.TrailerPrefix) }

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// inform sends an informational answer. 100 is the standby's business, which has the client.
func (w *responseWriter) inform(status int) {
	if status == http.StatusContinue || w.guard() != nil {
		return
	}
	b := binary.AppendUvarint(nil, uint64(status))
	b, ok := appendHeader(b, w.header, func(name string) bool {
		return name == "Content-Length" || name == "Transfer-Encoding" || isTrailer(name)
	})
	if !ok {
		return // it informs, and may be lost
	}
	_ = w.s.c.w.frame(frameInfo, 0, w.s.st.id, b, flushInline)
}

// guard is asked before anything is sent. After an error nothing leaves any more.
func (w *responseWriter) guard() error {
	if w.ended {
		return ErrDeposed
	}
	if w.s.declined.Load() && !w.sent {
		return errDeclined
	}
	if w.s.disowned.Load() && !w.sent {
		return ErrDeposed
	}
	if !w.s.exempt.Load() && !w.s.t.valid() {
		w.refuse(resetDeposed)
		return ErrDeposed
	}
	return nil
}

func (w *responseWriter) refuse(code resetCode) {
	if !w.ended {
		w.ended = true
		w.s.c.reset(w.s.st.id, code, "", flushInline)
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if len(p) >= answerBuffer && w.sent && !w.ended && !w.isHead && w.contentLength < 0 && bodyAllowed(w.status) {
		if err := w.flush(0); err != nil {
			return 0, err
		}
		w.written += int64(len(p))
		return w.s.st.write(p, 0) // straight on: gathering would only copy it
	}
	return write(w, p)
}

// WriteString saves the copy that io.WriteString would make.
func (w *responseWriter) WriteString(s string) (int, error) { return write(w, s) }

func write[T []byte | string](w *responseWriter, p T) (int, error) {
	if w.hijacked {
		return 0, http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.ended {
		return 0, w.guard()
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	w.written += int64(len(p))
	if w.contentLength >= 0 && w.written > w.contentLength {
		return 0, http.ErrContentLength
	}
	if w.isHead && w.sent {
		return len(p), nil
	}
	n := 0
	for len(p) > 0 {
		if w.buf == nil {
			w.buf = newChunk(min(len(p), answerBuffer))
		}
		if len(w.buf.b) == cap(w.buf.b) && cap(w.buf.b) < answerBuffer {
			w.buf = w.buf.grow(1)
		}
		if len(w.buf.b) == cap(w.buf.b) {
			if err := w.flush(0); err != nil {
				return n, err
			}
			continue
		}
		k := min(len(p), cap(w.buf.b)-len(w.buf.b))
		w.buf.b = append(w.buf.b, p[:k]...)
		p = p[k:]
		n += k
	}
	return n, nil
}

// Flush implements http.Flusher.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	if w.hijacked {
		return http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.ended {
		return w.guard()
	}
	err := w.flush(flagFlush)
	if w.buf != nil && len(w.buf.b) == 0 {
		w.buf.free()
		w.buf = nil
	}
	return err
}

// flush sends what is gathered: the head first, if it is not out yet.
func (w *responseWriter) flush(f frameFlags) error {
	if err := w.guard(); err != nil {
		return err
	}
	if !w.sent {
		if err := w.discardBody(); err != nil {
			return err
		}
		w.extendHead(false)
	}
	return w.send(f, nil)
}

// extendHead adds what depends on the body, as net/http does: the length of one that is complete, and
// the type that its first bytes look like.
func (w *responseWriter) extendHead(complete bool) {
	var p []byte
	if w.buf != nil {
		p = w.buf.b
	}
	if complete && w.contentLength < 0 && len(w.trailers) == 0 && !w.chunked && !w.hasTrailers() &&
		bodyAllowed(w.status) && (!w.isHead || len(p) > 0) {
		var digits [20]byte
		w.head.b = appendField1(w.head.b, "Content-Length", string(strconv.AppendInt(digits[:0], int64(len(p)), 10)))
	}
	if w.sniff && len(p) > 0 && !w.chunked {
		w.head.b = appendField1(w.head.b, "Content-Type", http.DetectContentType(p))
	}
}

// discardBody reads what is left of an HTTP/1 body, up to a limit, before the answer begins.
func (w *responseWriter) discardBody() error {
	b := &w.s.body
	if !w.http1 || w.fullDuplex || b.s == nil {
		return nil
	}
	if !b.mu.TryLock() {
		return nil // somebody else reads it
	}
	skip := b.expect || b.closed || b.sawEOF
	b.mu.Unlock()
	if skip {
		return nil
	}
	_, err := io.CopyN(io.Discard, b, maxDiscard)
	if err != nil && !errors.Is(err, io.EOF) && w.s.st.failed() != nil {
		return err
	}
	return nil
}

// release gives the buffers back.
func (w *responseWriter) release() {
	w.head.free()
	w.buf.free()
	w.head, w.buf = nil, nil
}

// EnableFullDuplex, SetReadDeadline and SetWriteDeadline serve http.ResponseController. Reading and
// writing at once always works.
func (w *responseWriter) EnableFullDuplex() error {
	w.fullDuplex = true
	return nil
}

func (w *responseWriter) SetReadDeadline(t time.Time) error {
	w.s.st.readDeadline.set(t)
	return nil
}

func (w *responseWriter) SetWriteDeadline(t time.Time) error {
	w.s.st.writeDeadline.set(t)
	return nil
}

// Hijack gives the handler the client's connection: raw bytes both ways, through the standby.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	switch {
	case w.hijacked:
		return nil, nil, http.ErrHijacked
	case w.sent || w.ended:
		return nil, nil, errors.New("forward: Hijack after the answer began")
	case !w.canHijack:
		return nil, nil, fmt.Errorf("forward: no Hijack for this request: %w", http.ErrNotSupported)
	}
	if err := w.guard(); err != nil {
		return nil, nil, err
	}
	t, err := newTunnel(w.s)
	if err != nil {
		return nil, nil, err
	}
	w.hijacked, w.ended = true, true
	return t, bufio.NewReadWriter(bufio.NewReader(t), bufio.NewWriter(t)), nil
}
