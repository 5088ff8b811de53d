package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// frontBuffer is what a short request fits into, head and body.
	frontBuffer = 4 << 10

	// frontWait is how long the rest of a request that has begun is waited for before net/http does.
	frontWait = 20 * time.Millisecond

	// patience is how long a request is carried out before somebody watches whether its client goes away. Nearly every one
	// is over sooner.
	patience = 10 * time.Millisecond
)

// A front answers the short requests of a connection in plain, one after the other, in one goroutine. With the first request that is
// none, the connection is net/http's for good, and has it from that request's first byte on.
//
// net/http has a second goroutine wait on the connection during each request, copies the head of each answer twice, and makes
// it through two layers of buffers; for a request that is only passed on, that is a large part of the cost.
type front struct {
	l    *Listener
	c    *conn
	ctx  context.Context
	from string // the client's address
	buf  *[frontBuffer]byte
	n    int // bytes in buf

	state atomic.Int32

	watching chan struct{} // closed when nobody watches any more; nil: nobody does
	watch    sync.Mutex    // over what follows, and the beginning of a watch
	cancel   context.CancelFunc
	stopped  bool
	timer    *time.Timer
}

const (
	frontIdle = iota
	frontBusy
	frontClosed
)

var frontBuffers = sync.Pool{New: func() any { return new([frontBuffer]byte) }}

// serveFront runs until the connection is closed or somebody else's.
func (l *Listener) serveFront(c *conn) {
	f := &front{l: l, c: c}
	if !l.enter(f) {
		_ = c.Close()
		return
	}
	defer l.leave(f)
	f.from = c.RemoteAddr().String() // may wait for the PROXY header
	ctx := context.WithValue(context.Background(), http.ServerContextKey, l.server)
	f.ctx = withConn(context.WithValue(ctx, http.LocalAddrContextKey, c.LocalAddr()), c)
	f.buf = frontBuffers.Get().(*[frontBuffer]byte)
	defer frontBuffers.Put(f.buf)
	for wait := l.cfg.ReadHeaderTimeout; ; wait = l.cfg.IdleTimeout {
		var r request
		size, ok := f.next(&r, wait)
		if !ok {
			return
		}
		if size == 0 {
			f.handOver()
			return
		}
		if !f.answer(&r, size) {
			return
		}
	}
}

// next waits for a request. size 0: it is none that is answered here. Not ok: the connection is over.
func (f *front) next(r *request, wait time.Duration) (size int, ok bool) {
	f.state.CompareAndSwap(frontBusy, frontIdle)
	if f.l.closing.Load() && f.n == 0 {
		_ = f.c.Close()
		return 0, false
	}
	_ = f.c.SetReadDeadline(time.Now().Add(wait))
	for begun := false; ; {
		if f.n > 0 {
			first := !begun
			if first {
				begun = true
				if !f.state.CompareAndSwap(frontIdle, frontBusy) {
					return 0, false // closed
				}
			}
			*r = request{}
			size, short := r.parse(f.buf[:f.n])
			switch {
			case !short || size+r.length > frontBuffer:
				return 0, true
			case size > 0 && size+r.length <= f.n:
				return size, true
			case f.n == frontBuffer:
				return 0, true
			case first: // once: from here on a head that comes drop by drop is net/http's to time
				_ = f.c.SetReadDeadline(time.Now().Add(frontWait))
			}
		}
		n, err := f.c.Read(f.buf[f.n:])
		f.n += n
		if err != nil && n == 0 {
			if begun && errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, true
			}
			_ = f.c.Close()
			return 0, false
		}
	}
}

// handOver gives the connection to net/http, with what was read.
func (f *front) handOver() {
	f.release()
	_ = f.c.SetReadDeadline(time.Time{})
	f.l.pass(accepted{conn: f.c})
}

// release puts back what was read.
func (f *front) release() {
	f.unwatch()
	if f.n > 0 {
		f.c.in.rest = append(append([]byte(nil), f.buf[:f.n]...), f.c.in.rest...)
		f.n = 0
	}
}

// answer has the handler answer a request. False: the connection is over, or another's.
func (f *front) answer(r *request, size int) (again bool) {
	target, err := r.url()
	if err != nil {
		f.handOver() // which says what is wrong with it
		return false
	}
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	req := (&http.Request{
		Method: r.method, URL: target, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: r.header, Body: http.NoBody,
		ContentLength: int64(r.length), Host: r.host, RemoteAddr: f.from, RequestURI: r.target, Close: r.close,
	}).WithContext(ctx)
	if r.length > 0 {
		req.Body = &shortBody{rest: append([]byte(nil), f.buf[size:size+r.length]...)}
	}
	f.n = copy(f.buf[:], f.buf[size+r.length:f.n])
	bufs := answerBuffers.Get().(*answerBuffer)
	w := &response{f: f, req: req, header: make(http.Header, 8), out: bufs.out[:0], body: bufs.body[:0]}
	f.begin(cancel)
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler {
				f.l.log.Error("a handler panicked", "listener", f.l.cfg.Address, "panic", v, "stack", string(debug.Stack()))
			}
			again = false
		}
		f.unwatch()
		if w.hijacked {
			return
		}
		if cap(w.out) <= together {
			bufs.out, bufs.body = w.out, w.body
			answerBuffers.Put(bufs)
		}
		if !again {
			_ = f.c.Close()
		}
	}()
	f.l.serve(w, req)
	return !w.hijacked && w.finish()
}

type answerBuffer struct{ out, body []byte }

var answerBuffers = sync.Pool{New: func() any { return new(answerBuffer) }}

// shortBody is a body that is there.
type shortBody struct {
	rest   []byte
	closed bool
}

func (b *shortBody) Read(p []byte) (int, error) {
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case len(b.rest) == 0:
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	if b.rest = b.rest[n:]; len(b.rest) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (b *shortBody) Close() error {
	b.closed = true
	return nil
}

// begin has the connection watched if the request takes long.
func (f *front) begin(cancel context.CancelFunc) {
	f.watch.Lock()
	defer f.watch.Unlock()
	f.cancel, f.stopped = cancel, false
	if f.timer == nil {
		f.timer = time.AfterFunc(patience, f.look)
	} else {
		f.timer.Reset(patience)
	}
}

// look waits for the end of the connection, or for the next request.
func (f *front) look() {
	f.watch.Lock()
	if f.stopped || f.watching != nil || f.n == frontBuffer {
		f.watch.Unlock()
		return
	}
	f.watching = make(chan struct{})
	done, cancel := f.watching, f.cancel
	_ = f.c.SetReadDeadline(time.Time{})
	f.watch.Unlock()
	defer close(done)
	n, err := f.c.Read(f.buf[f.n:])
	f.n += n
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		cancel()
	}
}

// unwatch returns when nobody watches.
func (f *front) unwatch() {
	f.watch.Lock()
	f.stopped = true
	if f.timer != nil {
		f.timer.Stop()
	}
	done := f.watching
	f.watching = nil
	f.watch.Unlock()
	if done != nil {
		_ = f.c.SetReadDeadline(longAgo)
		<-done
	}
}

// accepted is a connection for net/http, or why there is none.
type accepted struct {
	conn net.Conn
	err  error
}

// accept takes the port's connections until it is closed.
func (l *Listener) accept() {
	for {
		nc, err := l.ln.Accept()
		if err != nil {
			l.pass(accepted{err: err})
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // net/http says what, and takes its time before it asks again
		}
		c := l.newConn(nc)
		if conf := l.tls.Load(); conf != nil {
			l.pass(accepted{conn: tls.Server(c, conf)})
			continue
		}
		l.fronts.Go(func() { l.serveFront(c) })
	}
}

// pass gives net/http a connection. After the end it is closed.
func (l *Listener) pass(a accepted) {
	select {
	case l.passed <- a:
	case <-l.ended:
		if a.conn != nil {
			_ = a.conn.Close()
		}
	}
}

// accepting is the listener that net/http sees.
type accepting struct{ l *Listener }

func (a accepting) Accept() (net.Conn, error) {
	select {
	case p := <-a.l.passed:
		return p.conn, p.err
	case <-a.l.ended:
		return nil, net.ErrClosed
	}
}

func (a accepting) Addr() net.Addr { return a.l.ln.Addr() }
func (a accepting) Close() error   { return a.l.ln.Close() }

// enter notes a front. False: no more are served.
func (l *Listener) enter(f *front) bool {
	l.frontMu.Lock()
	defer l.frontMu.Unlock()
	if l.closing.Load() {
		return false
	}
	l.open[f] = struct{}{}
	return true
}

func (l *Listener) leave(f *front) {
	l.frontMu.Lock()
	defer l.frontMu.Unlock()
	delete(l.open, f)
}

// closeFronts closes those that wait for a request, or all of them, and returns how many did not wait.
func (l *Listener) closeFronts(all bool) (busy int) {
	l.frontMu.Lock()
	defer l.frontMu.Unlock()
	for f := range l.open {
		idle := f.state.CompareAndSwap(frontIdle, frontClosed)
		if f.state.Load() == frontBusy {
			busy++
		}
		if idle || all {
			_ = f.c.Close()
		}
	}
	return busy
}
