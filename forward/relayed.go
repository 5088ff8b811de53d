package forward

import (
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/locum-ha/locum/forward/websocket"
)

// tunnel takes the client's connection over and passes bytes both ways, until both are closed or the
// stream fails.
func (x *exchange) tunnel(st *stream) result {
	nc, rw, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		x.r.log.Warn("cannot take the client's connection over", "request_id", x.info.ID, "error", err)
		x.begun = true
		return result{delivered: true, err: err}
	}
	x.begun = true
	if x.r.beginWork() {
		defer x.r.work.Done() // Run's end leaves time for a last word to the client
	}
	st.reopen()
	up := make(chan struct{})
	go func() {
		defer close(up)
		copyUp(st, rw.Reader)
	}()
	defer func() {
		if !st.over() {
			st.c.reset(st.id, resetCancel, "", flushInline)
			st.fail(ErrClosed) // copyUp may wait for the window
		}
		_ = nc.Close()
		<-up
	}()
	upEnded := up
	halfClosed := false
	down := newClientSide(nc, x.req.Header)
	for {
		t := st.take()
		if t.c != nil {
			if t.writeTo(st, down) != nil {
				return result{done: true}
			}
		}
		if t.err != nil {
			down.breakOff()
			return result{done: true}
		}
		if t.end && !halfClosed {
			halfClosed = true
			closeWrite(nc)
		}
		if t.end && st.over() {
			return result{done: true}
		}
		select {
		case <-st.readable:
		case <-upEnded: // the client has closed its side, or the active node reads no more
			upEnded = nil
		}
	}
}

// copyUp sends what the client says, and its half-close.
func copyUp(st *stream, src io.Reader) {
	buf := newChunk(1)
	defer buf.free()
	p := buf.b[:cap(buf.b)]
	for {
		n, err := src.Read(p)
		if n > 0 {
			if _, werr := st.write(p[:n], flagFlush); werr != nil {
				return
			}
		}
		if err != nil {
			_, _ = st.write(nil, flagEnd|flagFlush)
			return
		}
	}
}

func closeWrite(nc net.Conn) {
	if c, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// clientSide is a client's connection that was taken over, on a standby. Where it is a WebSocket it is followed closely enough
// to be ended in the protocol's own words when the active node is lost.
type clientSide struct {
	net.Conn
	frames *websocket.Tracker // nil: bytes
	head   int                // how much of the blank line that ends the answer's head has been seen
}

const blankLine = "\r\n\r\n"

func newClientSide(nc net.Conn, request http.Header) *clientSide {
	c := &clientSide{Conn: nc}
	if strings.EqualFold(upgradeOf(request), "websocket") {
		c.frames = &websocket.Tracker{}
	}
	return c
}

func (c *clientSide) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.frames != nil {
		c.follow(p[:n])
	}
	return n, err
}

func (c *clientSide) follow(p []byte) {
	for c.head < len(blankLine) && len(p) > 0 {
		switch p[0] {
		case blankLine[c.head]:
			c.head++
		case '\r':
			c.head = 1
		default:
			c.head = 0
		}
		p = p[1:]
	}
	c.frames.Skip(p)
}

// breakOff ends a connection of which nothing more comes. A WebSocket is told to come again; where it cannot be, and any other
// connection, is reset, so that the client does not take what it got for whole.
func (c *clientSide) breakOff() {
	if c.frames != nil && c.head == len(blankLine) && c.frames.Boundary() {
		if c.frames.Closed() {
			return
		}
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := c.Conn.Write(websocket.CloseFrame(websocket.ServiceRestart, "another node takes over", false)); err == nil {
			return
		}
	}
	nc := c.Conn
	for {
		inner, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		nc = inner.NetConn()
	}
	if t, ok := nc.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
}
