package forward

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// localRun is a request that runs on the node that its client is connected to: a thin wrapper, in one
// allocation.
type localRun struct {
	run
	ctx  runCtx
	g    guardWriter
	body localBody
}

// runLocal lets the handler answer, if the lease allows it. A dropped answer makes the request go on.
func (x *exchange) runLocal(t *tenure) (res result) {
	if !t.valid() {
		return result{err: ErrDeposed}
	}
	l := &localRun{}
	l.info = x.info
	l.info.Term, l.info.Repeat = t.term, x.delivered
	ctx, cancel := context.WithCancelCause(x.req.Context())
	l.cancel = cancel
	defer cancel(context.Canceled)
	if !t.enter(&l.run) {
		return result{err: ErrDraining}
	}
	l.ctx = runCtx{Context: ctx, run: &l.run}
	l.g = guardWriter{ResponseWriter: x.w, x: x, run: &l.run}
	if !x.r.running.enter(&l.ctx, &l.info) {
		l.leave()
		return result{err: context.Cause(&l.ctx)}
	}
	req := x.req.WithContext(&l.ctx)
	if x.up != nil {
		x.up.setLocal(true)
		l.body = localBody{u: x.up, run: &l.run}
		req.Body = &l.body
	}
	start, returned := time.Now(), false
	defer func() {
		if x.up != nil {
			x.up.setLocal(false)
		}
		x.r.running.leave(&l.info)
		if !l.g.tookOver {
			l.leave()
		}
		if l.g.dropped && !l.g.begun {
			_ = recover() // the handler learnt by an error that its answer is not wanted
			x.resetHeader()
			res = l.outcome()
			return
		}
		if !returned && l.isDrained() {
			// An endless answer that a drain has ended: a clean end is how its client is told.
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				panic(v)
			}
			res = result{done: true}
		}
		d := time.Since(start)
		x.r.cfg.Observer.Local(d, l.g.status)
		x.r.logRequest("request run", &l.info, x.req.Method, l.g.status, d)
	}()
	t.handler.ServeHTTP(&l.g, req)
	returned = true
	l.g.done()
	return result{done: true}
}

// outcome is that of a run whose answer was dropped.
func (r *run) outcome() result {
	switch {
	case r.declined.Load():
		return result{err: errDeclined}
	case r.broken.Load():
		return result{delivered: true, broken: true, err: errBroken}
	}
	return result{delivered: true, err: ErrDeposed}
}

// disownCode says why the answer of a request was dropped that was carried out, or perhaps was.
func (r *run) disownCode() resetCode {
	if r.broken.Load() {
		return resetBroken
	}
	return resetDeposed
}

// resetHeader takes off what a handler has set whose answer is dropped.
func (x *exchange) resetHeader() {
	h := x.w.Header()
	clear(h)
	h[headerRequestID] = x.idVal[:]
}

// guardWriter asks the lease before anything of the answer leaves (P4).
type guardWriter struct {
	http.ResponseWriter
	x        *exchange
	run      *run
	status   int
	begun    bool // something was handed on
	dropped  bool // nothing may be handed on any more
	tookOver bool
}

// allow is asked after the handler has read its state and before what follows from it is sent.
func (g *guardWriter) allow() error {
	switch {
	case g.dropped:
		return ErrDeposed
	case g.run.exempt.Load():
		return nil
	case g.run.declined.Load() && !g.begun:
		g.dropped = true
		return errDeclined
	case g.run.disowned.Load() && !g.begun:
		g.dropped = true
		return ErrDeposed
	case !g.run.t.valid():
		g.dropped = true
		return ErrDeposed
	}
	return nil
}

func (g *guardWriter) WriteHeader(status int) {
	if g.allow() != nil {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		g.ResponseWriter.WriteHeader(status)
		return
	}
	g.begin(status)
	g.ResponseWriter.WriteHeader(status)
}

func (g *guardWriter) begin(status int) {
	if g.begun {
		return
	}
	g.begun, g.status = true, status
	h := g.Header()
	h[headerNode] = g.x.r.node
	h[headerTerm] = g.run.t.termStr
	delete(h, headerForwarder)
	if ct := h["Content-Type"]; len(ct) > 0 && strings.HasPrefix(ct[0], "text/event-stream") {
		g.run.setEndless()
	}
}

func (g *guardWriter) Write(p []byte) (int, error) {
	if err := g.allow(); err != nil {
		return 0, err
	}
	g.begin(http.StatusOK)
	return g.ResponseWriter.Write(p)
}

// WriteString saves the copy that io.WriteString would make.
func (g *guardWriter) WriteString(s string) (int, error) {
	if err := g.allow(); err != nil {
		return 0, err
	}
	g.begin(http.StatusOK)
	return io.WriteString(g.ResponseWriter, s)
}

// Flush implements http.Flusher.
func (g *guardWriter) Flush() { _ = g.FlushError() }

// FlushError is what http.ResponseController calls.
func (g *guardWriter) FlushError() error {
	if err := g.allow(); err != nil {
		return err
	}
	g.begin(http.StatusOK)
	return http.NewResponseController(g.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController find what this writer does not guard.
func (g *guardWriter) Unwrap() http.ResponseWriter { return g.ResponseWriter }

// done is called after the handler returned: an answer without a body has not been guarded yet, and one
// that was cut must not look whole.
func (g *guardWriter) done() {
	if g.tookOver {
		return
	}
	if !g.begun && g.allow() == nil {
		g.begin(http.StatusOK)
	}
	if g.dropped && g.begun {
		panic(http.ErrAbortHandler)
	}
}

// Hijack takes the connection over; it counts as running until it is closed.
func (g *guardWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := g.allow(); err != nil {
		return nil, nil, err
	}
	nc, rw, err := http.NewResponseController(g.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	g.tookOver, g.begun = true, true
	c := &takenConn{Conn: nc, run: g.run}
	g.run.takenOver(func() { _ = c.Close() })
	// What is written through the buffer must pass the guard too.
	return c, bufio.NewReadWriter(rw.Reader, bufio.NewWriter(c)), nil
}

// takenConn is a client's connection that a handler has taken over.
type takenConn struct {
	net.Conn
	run  *run
	once sync.Once
}

func (c *takenConn) Write(p []byte) (int, error) {
	if !c.run.exempt.Load() && !c.run.t.valid() {
		_ = c.Close()
		return 0, ErrDeposed
	}
	return c.Conn.Write(p)
}

func (c *takenConn) Close() error {
	c.once.Do(c.run.leave)
	return c.Conn.Close()
}

// CloseWrite is the half-close of what lies under it.
func (c *takenConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return http.ErrNotSupported
}
