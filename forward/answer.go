package forward

import (
	"errors"
	"net/http"
	"strings"
)

// send sends what is gathered, head, body and trailers, in one write if the window allows. The flags go
// with the last frame.
func (w *responseWriter) send(f frameFlags, trailers []byte) error {
	var body []byte
	if w.buf != nil && !w.isHead {
		body = w.buf.b
	}
	if w.sent && len(body) == 0 && trailers == nil && f&flagEnd == 0 {
		w.empty()
		return nil
	}
	if !w.sent && w.tooLong {
		return w.tooLarge()
	}
	st, cw := w.s.st, w.s.c.w
	atOnce := len(body) == 0 || st.canSend(len(body))
	if err := cw.lock(len(body) > 0 && atOnce); err != nil {
		return err
	}
	n := len(cw.buf)
	if !w.sent {
		hf := f
		if len(body) > 0 || trailers != nil {
			hf = 0
		}
		patchFrameHeader(w.head.b, len(w.head.b)-frameHeaderLen, frameResponse, hf, st.id)
		cw.buf = append(cw.buf, w.head.b...)
	}
	if atOnce {
		switch {
		case len(body) > 0 && trailers != nil:
			cw.buf = appendFrame(cw.buf, frameData, f&^flagEnd, st.id, body)
		case len(body) > 0, w.sent && trailers == nil:
			cw.buf = appendFrame(cw.buf, frameData, f, st.id, body)
		}
		if trailers != nil {
			cw.buf = appendFrame(cw.buf, frameTrailers, f, st.id, trailers)
		}
	}
	cw.unlock(n, flushInline)
	if !w.sent {
		w.sent = true
		w.head.free()
		w.head = nil
	}
	if !atOnce {
		if err := w.sendRest(f, body, trailers); err != nil {
			return err
		}
	}
	w.empty()
	return nil
}

func (w *responseWriter) empty() {
	if w.buf != nil {
		w.buf.b = w.buf.b[:0]
	}
}

// sendRest waits for the window.
func (w *responseWriter) sendRest(f frameFlags, body, trailers []byte) error {
	if trailers == nil {
		_, err := w.s.st.write(body, f)
		return err
	}
	if _, err := w.s.st.write(body, f&^flagEnd); err != nil {
		return err
	}
	return w.s.c.w.frame(frameTrailers, f, w.s.st.id, trailers, flushInline)
}

func (w *responseWriter) tooLarge() error {
	w.refuse(resetAborted)
	return errors.New("forward: the answer's header is too long")
}

// done ends the answer after the handler has returned.
func (w *responseWriter) done() {
	if w.hijacked {
		return
	}
	if w.s.declined.Load() && !w.sent {
		w.refuse(resetDeclined)
		return
	}
	if w.s.disowned.Load() && !w.sent {
		w.refuse(w.s.disownCode())
		return
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.ended || w.guard() != nil {
		return
	}
	if w.contentLength >= 0 && w.written < w.contentLength && !w.isHead && bodyAllowed(w.status) {
		if !w.sent && w.written == 0 && w.status == http.StatusNotModified {
			w.contentLength = -1
		} else {
			w.refuse(resetAborted) // net/http closes the connection: the client must not take it for whole
			return
		}
	}
	if err := w.finishAnswer(); err != nil {
		w.refuse(resetAborted)
	}
	w.ended = true
}

// finishAnswer sends the rest: for a small answer head, body and end in one write.
func (w *responseWriter) finishAnswer() error {
	if !w.sent {
		if err := w.discardBody(); err != nil {
			return err
		}
		w.extendHead(true)
	}
	trailers, err := w.encodeTrailers()
	if err != nil {
		return err
	}
	return w.send(flagEnd, trailers)
}

func (w *responseWriter) hasTrailers() bool {
	for name := range w.header {
		if isTrailer(name) {
			return true
		}
	}
	return false
}

// encodeTrailers gathers those declared in the Trailer field and those with http.TrailerPrefix; nil if
// there are none.
func (w *responseWriter) encodeTrailers() ([]byte, error) {
	var b []byte
	fields := 0
	for _, name := range w.trailers {
		if values := w.header[name]; len(values) > 0 {
			fields += 1 + len(values)
			b = appendField(b, name, values)
		}
	}
	for name, values := range w.header {
		if isTrailer(name) {
			fields += 1 + len(values)
			b = appendField(b, http.CanonicalHeaderKey(strings.TrimPrefix(name, http.TrailerPrefix)), values)
		}
	}
	if !fits(fields, len(b)) {
		return nil, errors.New("forward: the answer's trailers are too long")
	}
	return b, nil
}

// panicked ends the answer of a handler that panicked: 500 if nothing was sent, else it is broken off,
// so that nobody takes it for whole.
func (w *responseWriter) panicked(v any) {
	switch {
	case w.hijacked:
		w.s.st.fail(&resetError{code: resetAborted})
	case w.ended:
	case !w.sent && w.guard() != nil:
		switch {
		case w.s.declined.Load():
			w.refuse(resetDeclined)
		case w.s.disowned.Load():
			w.refuse(w.s.disownCode())
		}
	case v == http.ErrAbortHandler && w.sent && w.s.run.isDrained():
		// An endless answer that a drain has ended: a clean end is how its client is told.
		_ = w.send(flagEnd, nil)
		w.ended = true
	case w.sent || v == http.ErrAbortHandler:
		w.refuse(resetAborted)
	default:
		w.replace(http.StatusInternalServerError, `{"errors":["the handler failed"]}`)
	}
}

// replace sends another answer instead of the one that was begun.
func (w *responseWriter) replace(status int, body string) {
	w.head.free()
	w.buf.free()
	w.head, w.buf, w.status, w.contentLength, w.written, w.trailers = nil, nil, 0, -1, 0, nil
	w.header = http.Header{"Content-Type": {"application/json"}}
	w.WriteHeader(status)
	_, _ = w.WriteString(body + "\n")
	w.done()
}
