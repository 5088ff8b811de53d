package forward

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

// forward makes one attempt to have the active node answer.
func (x *exchange) forward(s *session) result {
	start := time.Now()
	var body []byte
	expect := x.expects()
	if x.up != nil {
		var err error
		if body, err = x.up.inline(expect); err != nil {
			return result{err: err}
		}
	}
	st, res := x.openStream(s, body, expect)
	if st == nil {
		return res
	}
	if x.up != nil && body == nil {
		x.up.send(st, expect)
	}
	var status int
	defer func() { // a panic breaks the client's connection off
		if x.up != nil {
			x.up.detach()
		}
		if !st.over() {
			s.reset(st.id, resetCancel, "", flushInline)
		}
		s.end(st)
		if status != 0 {
			d := time.Since(start)
			x.r.cfg.Observer.Forwarded(d, status)
			x.r.logRequest("request forwarded", &x.info, x.req.Method, status, d)
		}
	}()
	status, res = x.await(s, st)
	return res
}

// openStream sends the request's head, and its body if that is at hand. The stream is nil if nothing was
// sent.
func (x *exchange) openStream(s *session, body []byte, expect bool) (*stream, result) {
	window := s.budget.first()
	if window == 0 {
		return nil, result{err: errFull}
	}
	h := requestHead{window: uint64(window), uri: x.req.RequestURI, id: x.info.ID, slot: x.info.Slot, key: x.info.Key}
	if h.uri == "" {
		h.uri = x.req.URL.RequestURI()
	}
	h.bits = x.headBits(expect)
	c := newChunk(1)
	b := append(c.b, make([]byte, frameHeaderLen)...)
	b, ok := appendRequest(b, x.req, &h)
	c.b = b
	defer c.free()
	if !ok {
		s.budget.release(window)
		x.answer(http.StatusRequestHeaderFieldsTooLarge, "the request header is too large", "no")
		return nil, result{done: true}
	}
	f := frameFlags(0)
	if x.up == nil {
		f = flagEnd
	}
	st, err := s.open(b, window, f, body)
	if err != nil {
		s.budget.release(window)
		res := result{err: err}
		if errors.Is(err, errFull) {
			res.full = s.waitRoom()
		}
		return nil, res
	}
	return st, result{}
}

func (x *exchange) headBits(expect bool) (bits uint8) {
	set := func(on bool, bit uint8) {
		if on {
			bits |= bit
		}
	}
	set(x.req.TLS != nil, headTLS)
	set(x.req.TLS != nil && len(x.req.TLS.VerifiedChains) > 0, headVerified)
	set(x.req.ProtoMajor == 1 && x.up == nil, headHijackable)
	set(x.delivered, headRepeat)
	set(expect, headExpect)
	set(len(x.req.Trailer) > 0, headTrailer)
	return bits
}

// await waits for the answer and passes it on. The status is 0 if there was none.
func (x *exchange) await(s *session, st *stream) (int, result) {
	if st.alone {
		s.look(st)
	}
	for {
		h, ok, err := st.nextHead()
		switch {
		case ok && h.typ == frameInfo:
			x.inform(s, h)
		case ok && h.flags&flagHijack != 0:
			return http.StatusSwitchingProtocols, x.tunnel(st)
		case ok:
			return x.relay(s, st, h)
		case err != nil:
			return 0, x.lost(s, st, err)
		default:
			select {
			case <-st.readable:
			case <-x.req.Context().Done():
				x.open = true
				if x.up.tooSlow() {
					x.delivered = true
					x.clientFailed()
				}
				return 0, result{done: true}
			}
		}
	}
}

// lost says what is known after a stream has ended without an answer.
func (x *exchange) lost(s *session, st *stream, err error) result {
	var reset *resetError
	if !errors.As(err, &reset) {
		return result{delivered: s.w.delivered(st.offset), err: err}
	}
	switch reset.code {
	case resetNotProcessed, resetBusy, resetDeclined:
		return result{err: err}
	case resetBroken:
		return result{delivered: true, broken: true, err: errBroken}
	case resetAborted:
		x.begun = true // the handler wants the connection broken off
	}
	return result{delivered: true, err: err}
}

// inform passes on an informational answer.
func (x *exchange) inform(s *session, h head) {
	status, header, err := decodeResponse(h.payload)
	if err != nil || status >= 200 {
		s.fail(errProtocol)
		return
	}
	dst := x.w.Header()
	for name, values := range header {
		dst[name] = values
	}
	x.w.WriteHeader(status)
	x.resetHeader()
}

// relay passes the answer on. It begins only when there is something of the body to pass on, or all of
// it: an answer of which only the head has come when the active node dies can still be had from the next.
func (x *exchange) relay(s *session, st *stream, h head) (int, result) {
	if h.flags&(flagFlush|flagEnd) == 0 {
		for !st.worthwhile() {
			select {
			case <-st.readable:
			case <-x.req.Context().Done():
				x.open = true
				return 0, result{done: true}
			}
		}
		if err := st.broken(); err != nil {
			return 0, x.lost(s, st, err)
		}
	}
	status, header, err := decodeResponse(h.payload)
	if err != nil {
		s.fail(err)
		return 0, x.lost(s, st, err)
	}
	dst := x.w.Header()
	for name, values := range header {
		dst[name] = values
	}
	if _, ok := header["Content-Type"]; !ok {
		dst["Content-Type"] = nil // the active node has looked: net/http must not guess here
	}
	dst[headerForwarder] = x.r.node
	if x.up != nil && !x.up.atEOF() {
		_ = http.NewResponseController(x.w).EnableFullDuplex() // the pump goes on reading
	}
	x.begun = true
	x.call = x.req.ProtoMajor == 2 && isGRPC(header)
	x.w.WriteHeader(status)
	if h.flags&flagFlush != 0 {
		x.flush()
	}
	return status, x.relayBody(st, header)
}

// endCall ends a gRPC call whose active node was lost with a status, which tells the client more than a broken stream.
func (x *exchange) endCall() bool {
	if !x.call {
		return false
	}
	h := x.w.Header()
	h[http.TrailerPrefix+"Grpc-Status"] = []string{"14"} // UNAVAILABLE
	h[http.TrailerPrefix+"Grpc-Message"] = []string{"the active node was lost"}
	return true
}

func isGRPC(h http.Header) bool {
	ct := h["Content-Type"]
	return len(ct) > 0 && strings.HasPrefix(ct[0], "application/grpc")
}

func (x *exchange) flush() {
	if f, ok := x.w.(http.Flusher); ok {
		f.Flush()
		return
	}
	_ = http.NewResponseController(x.w).Flush() // a writer that cannot sends when it is full
}

func (x *exchange) relayBody(st *stream, header http.Header) result {
	for {
		t := st.take()
		if t.c != nil {
			err := t.writeTo(st, x.w)
			if err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
				x.open = !t.end
				return result{done: true}
			}
		}
		if t.end {
			if t.trailers != "" {
				x.setTrailers(t.trailers, header)
			}
			return result{done: true}
		}
		if t.flush {
			x.flush()
		}
		if t.err != nil {
			return result{delivered: true, err: t.err}
		}
		select {
		case <-st.readable:
		case <-x.req.Context().Done():
			x.open = true
			return result{done: true}
		}
	}
}

func (x *exchange) setTrailers(payload string, header http.Header) {
	h, err := decodeTrailers(payload)
	if err != nil {
		panic(http.ErrAbortHandler) // the answer must not look whole
	}
	dst := x.w.Header()
	for name, values := range h {
		if !hasToken(header["Trailer"], name) {
			name = http.TrailerPrefix + name
		}
		dst[name] = values
	}
}
