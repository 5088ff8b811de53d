package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/forward"
)

// inlineBody: a body whose length is known to be at most this is read before a connection is taken for it, and leaves with
// the head in one write.
const inlineBody = 32 << 10

// maxInfos is how many informational answers are passed on for one request.
const maxInfos = 16

// settle is how long a body may go on being read by the application after it has answered.
const settle = 50 * time.Millisecond

// An exchange is one request over HTTP/1.1 and its answer.
type exchange struct {
	u    *Upstream
	c    *conn
	w    http.ResponseWriter
	r    *http.Request
	stop func() bool // takes the context's end off the connection
	sent chan error  // what came of the body, if it has a goroutine
	keep bool        // the connection can be used again
}

func (u *Upstream) serveHTTP1(w http.ResponseWriter, r *http.Request) {
	upgrade := upgradeOf(r)
	hasBody := r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
	inline := hasBody && r.ContentLength > 0 && r.ContentLength <= inlineBody
	var body []byte
	if inline {
		buf := copyBuffers.Get().(*[]byte)
		defer copyBuffers.Put(buf)
		body = (*buf)[:r.ContentLength]
		if _, err := io.ReadFull(r.Body, body); err != nil {
			badBody(w, err)
			return
		}
	}
	c, err := u.pool.get(r.Context())
	if err != nil {
		u.unreachable(w, r, err)
		return
	}
	x := &exchange{u: u, c: c, w: w, r: r}
	x.stop = context.AfterFunc(r.Context(), c.interrupt)
	defer func() {
		if !x.stop() {
			x.keep = false
		}
		x.finish()
	}()
	length := r.ContentLength
	if !hasBody {
		length = 0
	}
	c.head = u.cfg.MaxHeaderBytes
	c.wbuf = append(appendRequest(c.wbuf[:0], r, length, upgrade), body...)
	if _, err := c.Write(c.wbuf); err != nil {
		u.broke(w, r, err)
		return
	}
	if hasBody && !inline {
		_ = http.NewResponseController(w).EnableFullDuplex() // the answer may come first
		x.sent = make(chan error, 1)
		go func() { x.sent <- x.upload(length < 0) }()
	}
	x.answer(upgrade)
}

// badBody: the client did not send what it said it would.
func badBody(w http.ResponseWriter, err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		fail(w, http.StatusRequestEntityTooLarge, "the request body is too long", "no")
	case errors.Is(err, os.ErrDeadlineExceeded):
		fail(w, http.StatusRequestTimeout, "the request body came too slowly", "no")
	default:
		fail(w, http.StatusBadRequest, "the request body ended early", "no")
	}
}

// finish gives the connection back, after the body's goroutine has ended.
func (x *exchange) finish() {
	if x.sent != nil {
		timer := time.NewTimer(settle)
		defer timer.Stop()
		select {
		case err := <-x.sent:
			x.keep = x.keep && err == nil
		case <-timer.C:
			// It waits for the client, or for the application: neither is worth more.
			x.keep = false
			x.c.interrupt()
			_ = http.NewResponseController(x.w).SetReadDeadline(time.Unix(1, 0))
			<-x.sent
		}
	}
	if x.c != nil {
		x.u.pool.put(x.c, x.keep)
	}
}

// upload sends a body piece by piece. A body that ends early breaks the connection, so that the application does not take it
// for whole.
func (x *exchange) upload(chunked bool) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	const room = chunkRoom
	b := *buf
	left := x.r.ContentLength
	for {
		n, err := x.r.Body.Read(b[room : len(b)-2])
		if n > 0 {
			part := b[room : room+n]
			if chunked {
				part = chunk(b, n)
			}
			left -= int64(n)
			if _, werr := x.c.Write(part); werr != nil {
				return werr // the application may have answered
			}
		}
		switch {
		case err == nil:
			continue
		case !errors.Is(err, io.EOF):
			x.c.interrupt()
			return err
		case chunked:
			_, err = x.c.Write(x.lastChunk())
			return err
		case left != 0:
			x.c.interrupt()
			return io.ErrUnexpectedEOF
		}
		return nil
	}
}

// chunkRoom is what the length of a chunk may take, before it.
const chunkRoom = 10

// chunk puts the length before the n bytes that lie behind the room for it in b, and the end behind them.
func chunk(b []byte, n int) []byte {
	var digits [chunkRoom]byte
	head := append(strconv.AppendInt(digits[:0], int64(n), 16), '\r', '\n')
	start := chunkRoom - len(head)
	copy(b[start:], head)
	copy(b[chunkRoom+n:], "\r\n")
	return b[start : chunkRoom+n+2]
}

func (x *exchange) lastChunk() []byte {
	b := []byte("0\r\n")
	for name, values := range x.r.Trailer {
		if !dropped(name) {
			b = appendField(b, name, values)
		}
	}
	return append(b, '\r', '\n')
}

// answer reads the answer and passes it on.
func (x *exchange) answer(upgrade string) {
	var h plainHead
	if x.plain(&h) {
		x.c.head = -1
		x.relayPlain(&h)
		return
	}
	for range maxInfos {
		resp, err := http.ReadResponse(x.c.br, x.r)
		switch {
		case err != nil:
			x.noAnswer(err)
			return
		case resp.StatusCode == http.StatusSwitchingProtocols:
			x.c.head = -1
			x.switchProtocols(resp, upgrade)
			return
		case resp.StatusCode >= 200:
			x.c.head = -1
			x.relay(resp)
			return
		case resp.StatusCode != http.StatusContinue:
			x.inform(resp)
		}
		x.c.head = x.u.cfg.MaxHeaderBytes
	}
	x.u.malformed(x.w, x.r, fmt.Errorf("more than %d informational answers", maxInfos))
}

// inform passes an informational answer on, and takes its fields off again.
func (x *exchange) inform(resp *http.Response) {
	h := x.w.Header()
	had := h.Clone()
	x.copyHeader(resp.Header)
	x.w.WriteHeader(resp.StatusCode)
	clear(h)
	for name, values := range had {
		h[name] = values
	}
}

// noAnswer: it broke off, or is none.
func (x *exchange) noAnswer(err error) {
	if x.c.ended != nil && !errors.Is(err, errHead) {
		x.u.broke(x.w, x.r, errors.Join(err, x.c.ended))
		return
	}
	x.u.malformed(x.w, x.r, err)
}

// copyHeader takes over what travels end to end.
func (x *exchange) copyHeader(h http.Header) { copyHeader(x.w.Header(), h) }

func copyHeader(dst, h http.Header) {
	listed := h["Connection"]
	for name, values := range h {
		if dropped(name) || strings.HasPrefix(name, "X-Locum-") || len(listed) > 0 && hasToken(listed, name) {
			continue
		}
		dst[name] = values
	}
}

// relay passes an answer on, as it comes.
func (x *exchange) relay(resp *http.Response) {
	h := x.w.Header()
	x.copyHeader(resp.Header)
	if _, ok := resp.Header["Content-Type"]; !ok {
		h["Content-Type"] = nil // it is the application's to say: nobody must guess
	}
	declared := announce(h, resp.Trailer)
	x.w.WriteHeader(resp.StatusCode)
	if err := x.relayBody(resp); err != nil {
		x.u.log.Debug("answer broken off", "error", err)
		panic(http.ErrAbortHandler) // the client must not take it for whole
	}
	trail(h, resp.Trailer, declared)
	x.keep = !resp.Close && x.r.Context().Err() == nil
}

// announce declares the trailers that the application has declared.
func announce(h, trailer http.Header) (declared map[string]bool) {
	if len(trailer) == 0 {
		return nil
	}
	declared = make(map[string]bool, len(trailer))
	delete(h, "Content-Length") // over HTTP/1.1, trailers come behind chunks
	for name := range trailer {
		declared[name] = true
		h["Trailer"] = append(h["Trailer"], name)
	}
	return declared
}

func trail(h, trailer http.Header, declared map[string]bool) {
	for name, values := range trailer {
		if !declared[name] {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// relayBody passes the body on. What the application has sent at a time is passed on at a time: it may be all for long.
func (x *exchange) relayBody(resp *http.Response) error {
	n := resp.ContentLength
	if n == 0 || resp.Body == http.NoBody {
		return nil
	}
	if n > 0 && n <= int64(x.c.br.Buffered()) {
		b, _ := x.c.br.Peek(int(n)) // it is there
		_, err := x.w.Write(b)
		_, _ = x.c.br.Discard(int(n))
		return clientError(err)
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	ctl := http.NewResponseController(x.w)
	for {
		if n < 0 && x.c.br.Buffered() <= len("\r\n") { // the end of a chunk is left behind
			_ = ctl.Flush()
		}
		k, err := resp.Body.Read(*buf)
		if k > 0 {
			if _, werr := x.w.Write((*buf)[:k]); werr != nil {
				return clientError(werr)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// clientError: an answer to HEAD, or with a status that has no body, is whole without it.
func clientError(err error) error {
	if errors.Is(err, http.ErrBodyNotAllowed) {
		return nil
	}
	return err
}

// switchProtocols hands both connections to a tunnel.
func (x *exchange) switchProtocols(resp *http.Response, upgrade string) {
	if got := resp.Header.Get("Upgrade"); upgrade == "" || !strings.EqualFold(got, upgrade) {
		x.u.malformed(x.w, x.r, fmt.Errorf("it switches to %q, and was asked for %q", got, upgrade))
		return
	}
	client, rw, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		x.u.malformed(x.w, x.r, fmt.Errorf("the client's connection cannot be taken over: %w", err))
		return
	}
	c := x.c
	x.c = nil // the tunnel's, which ends it in its own way
	x.stop()
	defer x.u.pool.release()
	t := &tunnel{u: x.u, ctx: x.r.Context(), client: client, app: c.Conn, websocket: strings.EqualFold(upgrade, "websocket")}
	t.fromClient, t.fromApp = buffered(rw.Reader), buffered(c.br)
	c.br = nil
	if _, err := client.Write(x.switchHead(resp)); err != nil {
		abort(c.Conn)
		_ = client.Close()
		return
	}
	t.run()
}

// switchHead is the answer's head, which nobody else writes on a connection that was taken over.
func (x *exchange) switchHead(resp *http.Response) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n")
	head := http.Header{}
	copyHeader(head, resp.Header)
	head["Upgrade"] = []string{resp.Header.Get("Upgrade")}
	if info := forward.InfoFrom(x.r.Context()); info.Term > 0 {
		head["X-Request-Id"] = []string{info.ID}
		head["X-Locum-Node"] = []string{x.u.cfg.Node}
		head["X-Locum-Term"] = []string{strconv.FormatUint(info.Term, 10)}
		if info.ForwardedBy != "" {
			head["X-Locum-Forwarded-By"] = []string{info.ForwardedBy}
		}
	}
	_ = head.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes()
}
