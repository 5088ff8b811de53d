package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/forward/websocket"
)

const (
	// tunnelBuffer is what an idle direction of a tunnel keeps; a busy one gets busyBuffer.
	tunnelBuffer = 2 << 10
	busyBuffer   = 32 << 10

	// farewell is how long both ends may take to close after they were told to; less than the router's patience.
	farewell = 700 * time.Millisecond

	// quiet is how long nothing flows in a byte stream before it is closed in a step-down: its bytes mean nothing here, so a
	// pause is the best moment there is.
	quiet = 50 * time.Millisecond
)

// A tunnel passes bytes between a client and the application, both ways, until both have ended, one breaks, or the node is
// not active any more.
type tunnel struct {
	u                   *Upstream
	ctx                 context.Context
	client, app         net.Conn
	fromClient, fromApp []byte // read already
	websocket           bool

	up, down *side
	last     atomic.Int64 // when anything flowed: Unix nanoseconds
}

// A side is where one direction is written to.
type side struct {
	mu      sync.Mutex
	conn    net.Conn
	frames  *websocket.Tracker // nil: bytes
	closing []byte             // a close frame to be written at the next boundary
	closed  bool               // it was written: nothing follows
}

// buffered takes what a reader has read ahead.
func buffered(br *bufio.Reader) []byte {
	n := br.Buffered()
	if n == 0 {
		return nil
	}
	b, _ := br.Peek(n)
	return append([]byte(nil), b...)
}

// run returns when everything has ended and both connections are closed.
func (t *tunnel) run() {
	t.u.cfg.Observer.Tunnels(1)
	defer t.u.cfg.Observer.Tunnels(-1)
	t.up, t.down = &side{conn: t.app}, &side{conn: t.client}
	if t.websocket {
		t.up.frames, t.down.frames = &websocket.Tracker{}, &websocket.Tracker{}
	}
	t.last.Store(time.Now().UnixNano())
	ended := make(chan struct{})
	stop := context.AfterFunc(t.ctx, func() {
		defer close(ended)
		t.end()
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.flow(t.up, t.client, t.fromClient)
	}()
	t.flow(t.down, t.app, t.fromApp)
	<-done
	if !stop() {
		<-ended
	}
	_ = t.app.Close()
	_ = t.client.Close()
}

// flow passes one direction on, and its end.
func (t *tunnel) flow(to *side, from net.Conn, first []byte) {
	err := to.write(first)
	buf := make([]byte, tunnelBuffer)
	for err == nil {
		var n int
		n, err = from.Read(buf)
		if n > 0 {
			t.last.Store(time.Now().UnixNano())
			if werr := to.write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if n == len(buf) && n < busyBuffer {
			buf = make([]byte, busyBuffer)
		}
	}
	if errors.Is(err, io.EOF) {
		closeWrite(to.conn)
		return
	}
	// Broken: neither end must take what it got for whole.
	abort(t.app)
	_ = t.client.Close()
}

// write passes p on. With a close frame to come it passes on the rest of the frame that is under way, and no more.
func (s *side) write(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		if s.closed {
			return nil
		}
		if s.closing != nil && s.frames.Boundary() {
			return s.writeClose()
		}
		n := len(p)
		switch {
		case s.frames == nil:
		case s.closing != nil:
			n = s.frames.Next(p)
		default:
			s.frames.Skip(p)
		}
		if _, err := s.conn.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		if s.closing != nil && s.frames.Boundary() {
			return s.writeClose()
		}
	}
	return nil
}

// plan has a close frame follow the frame that is under way.
func (s *side) plan(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = frame
}

// tell writes the close frame that was planned, at once if no frame is under way.
func (s *side) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frames.Boundary() && !s.closed {
		_ = s.writeClose() // a broken connection ends by itself
	}
}

func (s *side) writeClose() error {
	s.closed = true
	if s.frames.Closed() {
		return nil // the other end has said it in its own words
	}
	_, err := s.conn.Write(s.closing)
	return err
}

// end is what the end of the context does: the client has gone, or this node is not, or not much longer, active.
func (t *tunnel) end() {
	if errors.Is(context.Cause(t.ctx), forward.ErrDraining) {
		if t.websocket {
			t.sayGoodbye()
		} else {
			t.pause()
		}
	}
	abort(t.app)
	_ = t.client.Close()
}

// sayGoodbye tells both ends in their protocol, and leaves them a moment to answer.
func (t *tunnel) sayGoodbye() {
	deadline := time.Now().Add(farewell)
	_ = t.client.SetDeadline(deadline)
	_ = t.app.SetDeadline(deadline)
	const reason = "another node takes over"
	// Both are planned before either is told: the application's answer to its own must not reach the client first.
	t.down.plan(websocket.CloseFrame(websocket.ServiceRestart, reason, false))
	t.up.plan(websocket.CloseFrame(websocket.ServiceRestart, reason, true))
	var both sync.WaitGroup
	both.Go(t.down.tell)
	both.Go(t.up.tell)
	both.Wait()
	t.await(deadline, func() bool { return t.up.over() && t.down.over() })
	closeWrite(t.client)
}

// over: a close frame has gone this way, and none is needed any more.
func (s *side) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// pause waits for a moment in which nothing flows, then closes both ends.
func (t *tunnel) pause() {
	t.await(time.Now().Add(farewell), func() bool { return time.Since(time.Unix(0, t.last.Load())) >= quiet })
	closeWrite(t.client)
	closeWrite(t.app)
}

// await polls a condition until a deadline.
func (t *tunnel) await(deadline time.Time, ok func() bool) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() && time.Now().Before(deadline) {
		<-tick.C
	}
}
