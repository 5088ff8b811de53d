package forward

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// serverBody is a forwarded request's body on the active node.
type serverBody struct {
	s *served

	mu     sync.Mutex
	expect bool // the client waits for 100-continue until somebody reads
	closed bool
	sawEOF bool
}

func (b *serverBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case b.sawEOF:
		return 0, io.EOF
	}
	if b.expect {
		b.expect = false
		if err := b.s.c.sendWindow(b.s.st.id, 0, flagContinue); err != nil {
			return 0, err
		}
	}
	n, err := b.s.st.read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.sawEOF = true
		b.readTrailers()
	case !errors.Is(err, errDeadline):
		err = errors.Join(io.ErrUnexpectedEOF, err)
	}
	return n, err
}

func (b *serverBody) readTrailers() {
	payload := b.s.st.take().trailers
	if payload == "" {
		return
	}
	h, err := decodeTrailers(payload)
	if err != nil {
		b.s.c.fail(err)
		return
	}
	if b.s.req.Trailer == nil {
		b.s.req.Trailer = make(http.Header, len(h))
	}
	for name, values := range h {
		b.s.req.Trailer[name] = values
	}
}

// Close says that no more is wanted: the standby need not send the rest.
func (b *serverBody) Close() error {
	b.close()
	return nil
}

func (b *serverBody) close() {
	if b.s == nil {
		return // no body
	}
	if !b.mu.TryLock() {
		// A Read that waits for the client holds it.
		b.s.st.readDeadline.set(aLongTimeAgo)
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	if !b.sawEOF && !b.s.st.ended() {
		_ = b.s.c.w.frame(frameStop, 0, b.s.st.id, nil, flushInline)
	}
}
