package forward

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// serverConn is the active side of one standby's connection.
type serverConn struct {
	*conn
	r        *Router
	peerID   string
	peerName []string // as a header's values
	since    time.Time
	work     sync.WaitGroup // handlers

	lastEcho atomic.Int64
	rtt      atomic.Int64
	skew     atomic.Int64
	lastInfo atomic.Pointer[string]

	// under conn.mu
	goneAway bool
	idle     []chan *served // goroutines that wait for a request
}

// ServeConn serves the connection of the standby that the caller has authenticated as peerID, until the
// connection ends or ctx does, and returns why when all that it started has ended. Requests are run
// while this node leads; at any other time they are refused as not processed, never passed on.
func (r *Router) ServeConn(ctx context.Context, nc net.Conn, peerID, peerName string) error {
	c := &serverConn{r: r, peerID: peerID, peerName: []string{peerName}, since: time.Now()}
	c.conn = newConn(nc, hello{
		minVersion: versionMin, maxVersion: versionMax, window: bodyWindow, streams: uint64(r.cfg.MaxStreams),
		nodeID: r.cfg.NodeID, nodeName: r.cfg.Node, info: string(r.cfg.Hello()),
	}, r.cfg.WindowBudget)
	c.role, c.info = c, r.cfg.Hello
	if err := c.handshake(ctx); err != nil {
		return err
	}
	if c.peer.nodeID != peerID {
		err := fmt.Errorf("%w: certificate of %q, hello of %q", ErrPeer, peerID, c.peer.nodeID)
		c.fail(err)
		return err
	}
	r.cfg.OnHello(peerID, []byte(c.peer.info), 0, 0)

	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		c.fail(ErrClosed)
		return ErrClosed
	}
	for old := range r.serving {
		if old.peerID == peerID && !c.peer.replaces(&old.peer) {
			r.mu.Unlock()
			c.fail(ErrSuperseded)
			return ErrSuperseded
		}
	}
	for old := range r.serving {
		if old.peerID == peerID {
			// What it has delivered will be delivered again on this one. Whatever of that has not begun to
			// run must not begin behind the repeat: serve looks at its context once it holds the slot.
			old.fail(ErrSuperseded)
		}
	}
	r.serving[c] = struct{}{}
	r.work.Add(1)
	defer r.work.Done()
	leading, term := r.tenure != nil && !r.holding, r.known
	_ = c.w.frame(frameState, 0, 0, appendState(nil, leading, term), flushAsync)
	r.mu.Unlock()
	r.cfg.Observer.Connected(peerID, true)
	r.log.Info("standby connected", "peer", peerName)

	err := c.run(ctx)
	r.mu.Lock()
	delete(r.serving, c)
	r.mu.Unlock()
	c.work.Wait()
	r.cfg.Observer.Connected(peerID, false)
	r.log.Info("standby disconnected", "peer", peerName, "error", err)
	return err
}

// announce tells all standbys whether this node leads. Called with r.mu held.
func (r *Router) announce(leading bool, term uint64) {
	for c := range r.serving {
		_ = c.w.frame(frameState, 0, 0, appendState(nil, leading, term), flushAsync)
	}
}

// serverConns and closeServing are called with r.mu held.
func (r *Router) serverConns() []*serverConn {
	conns := make([]*serverConn, 0, len(r.serving))
	for c := range r.serving {
		conns = append(conns, c)
	}
	return conns
}

func (r *Router) closeServing(cause error) {
	for _, c := range r.serverConns() {
		// fail calls lost, which for a serverConn takes no lock of the router.
		c.fail(cause)
	}
}

// sendGoaway says that streams behind the last one that has arrived will not be looked at.
func (c *serverConn) sendGoaway(reason string) {
	c.mu.Lock()
	c.goneAway = true
	last := c.lastID
	c.mu.Unlock()
	_ = c.w.frame(frameGoaway, 0, 0, appendGoaway(nil, last, reason), flushAsync)
}

func (c *serverConn) state(string) error {
	return fmt.Errorf("%w: state from a standby", errProtocol)
}

func (c *serverConn) goaway(string) error {
	return fmt.Errorf("%w: goaway from a standby", errProtocol)
}

func (c *serverConn) echoed(info string, rtt, skew time.Duration) {
	c.lastEcho.Store(time.Now().UnixNano())
	c.rtt.Store(int64(rtt))
	c.skew.Store(int64(skew))
	c.lastInfo.Store(&info)
	c.r.cfg.OnHello(c.peerID, []byte(info), rtt, skew)
}

func (c *serverConn) said(info string) {
	c.lastInfo.Store(&info)
	c.r.cfg.OnHello(c.peerID, []byte(info), time.Duration(c.rtt.Load()), time.Duration(c.skew.Load()))
}

func (c *serverConn) lost(error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, next := range c.idle {
		close(next)
	}
	c.idle = nil
}

// request opens a stream and hands it to a goroutine of its own.
//
// Whether the request is taken in or refused is settled, and a refusal queued, while c.mu is held, as
// sendGoaway takes it: so a drain that has sent GOAWAY knows every request before it, and what syncs
// after it comes behind every refusal.
func (c *serverConn) request(h frameHeader, payload []byte) error {
	in, reserve, code := 0, len(payload), resetCode(0) // the head takes memory too
	if h.flags&flagEnd == 0 {
		in = bodyWindow
		reserve += in
	}
	if !c.budget.reserve(reserve, 4) {
		reserve, code = 0, resetBusy
	}
	s := &served{c: c}
	ctx, cancel := context.WithCancelCause(context.Background())
	s.ctx, s.cancel = runCtx{Context: ctx, run: &s.run}, cancel

	c.mu.Lock()
	defer c.mu.Unlock()
	if h.stream <= c.lastID {
		c.budget.release(reserve)
		return fmt.Errorf("%w: stream %d after %d", errProtocol, h.stream, c.lastID)
	}
	if c.goneAway || c.err != nil {
		c.budget.release(reserve)
		return nil // it was told: behind the last one
	}
	c.lastID = h.stream
	if code == 0 && len(c.streams) >= c.r.cfg.MaxStreams {
		code = resetBusy
	}
	if t := c.r.place.Load().local; code == 0 && (t == nil || !t.enter(&s.run)) {
		code = resetNotProcessed
	}
	if code != 0 {
		c.budget.release(reserve)
		c.reset(h.stream, code, "", flushAsync)
		return nil
	}
	s.st = newStream(c.conn, h.stream, in, 0)
	s.st.reserved = reserve
	s.st.inEnd = h.flags&flagEnd != 0
	c.streams[h.stream] = s.st
	c.w.crowd.Store(int32(len(c.streams)))
	s.head = string(payload)
	c.start(s)
	return nil
}

// maxIdle is how many goroutines a connection keeps for the next requests: their stacks have grown to
// what the handler needs.
const maxIdle = 64

// start hands a request to an idle goroutine, or to a new one. Called with c.mu held.
func (c *serverConn) start(s *served) {
	if n := len(c.idle); n > 0 {
		c.idle[n-1] <- s // has room: its goroutine waits for exactly this
		c.idle[n-1] = nil
		c.idle = c.idle[:n-1]
		return
	}
	c.work.Go(func() { c.handleAll(s) })
}

// handleAll runs one request after the other until the connection ends or enough others are idle.
func (c *serverConn) handleAll(s *served) {
	next := make(chan *served, 1)
	for s != nil {
		s.serve()
		c.mu.Lock()
		if c.err != nil || len(c.idle) >= maxIdle {
			c.mu.Unlock()
			return
		}
		c.idle = append(c.idle, next)
		c.mu.Unlock()
		s = <-next // nil: the connection has ended
	}
}

// end takes a stream off; nobody reads it any more.
func (c *serverConn) end(st *stream) {
	c.remove(st.id)
	st.close()
}
