package forward

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// prefetchLimit: a body whose length is known to be at most this is read before the request is sent, so
// that both leave in one write and no goroutine is needed for it.
const prefetchLimit = 16 << 10

// An upload is a request's body on its way from the client. What was read is kept, up to the retry
// buffer, so that the request can be sent again; it is read by the handler itself when the request runs
// here, and by a pump when it is passed on. There is one pump for all attempts, since a Read that
// waits for the client cannot be taken back.
type upload struct {
	x   *exchange
	src io.ReadCloser
	max int64 // Config.MaxBody

	reading sync.Mutex // held over a Read of src, and until what it gave is in kept

	mu     sync.Mutex
	kept   *chunk
	whole  bool  // kept holds all that was read so far
	total  int64 // read so far
	err    error // io.EOF or what the client did
	ctl    *http.ResponseController
	pump   chan struct{} // closed when the pump has ended; nil: never started
	to     *stream       // where the pump sends; nil: it waits
	resume chan struct{} // to was set, or closed; capacity 1
	local  bool          // a handler on this node reads it
	closed bool
}

var errNotKept = errors.New("forward: the request body cannot be sent again")

var errTooLarge = errors.New("forward: the request body is longer than this node takes")

// next reads once from the client into p, and keeps what came.
func (u *upload) next(p []byte) (int, error) {
	u.reading.Lock()
	defer u.reading.Unlock()
	return u.read(p)
}

// read is called with u.reading held.
func (u *upload) read(p []byte) (int, error) {
	u.mu.Lock()
	err, closed := u.err, u.closed
	u.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if closed {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := u.src.Read(p)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.total += int64(n)
	if u.max > 0 && u.total > u.max {
		u.err = errTooLarge
		u.drop()
		return 0, u.err
	}
	u.keep(p[:n])
	u.err = err
	return n, err
}

// keep is called with u.mu held. What no attempt takes at once is in no other place: it is kept beyond
// the retry buffer's limit.
func (u *upload) keep(p []byte) {
	if !u.whole || len(p) == 0 {
		return
	}
	had := 0
	if u.kept != nil {
		had = len(u.kept.b)
	}
	taken := u.local || u.to != nil
	if taken && int64(had+len(p)) > u.x.r.cfg.RetryBuffer || !u.x.r.held.keep(int64(len(p)), true) {
		u.drop()
		return
	}
	if u.kept == nil {
		u.kept = newChunk(len(p))
	} else {
		u.kept = u.kept.grow(len(p))
	}
	u.kept.b = append(u.kept.b, p...)
}

// drop gives up the possibility of sending the body again. Called with u.mu held.
func (u *upload) drop() {
	u.whole = false
	if u.kept != nil {
		u.x.r.held.release(int64(len(u.kept.b)))
		u.kept.free()
		u.kept = nil
	}
}

func (u *upload) replayable() bool {
	if u == nil {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.whole
}

// prefetch reads a short body to its end, which becomes what is kept. No attempt has begun.
func (u *upload) prefetch(n int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.kept == nil {
		u.kept = newChunk(n + 1)
	}
	for u.err == nil {
		c := u.kept.grow(512)
		u.kept = c
		k, err := u.src.Read(c.b[len(c.b):cap(c.b)])
		c.b = c.b[:len(c.b)+k]
		u.total += int64(k)
		u.x.r.held.bytes.Add(int64(k))
		u.err = err
	}
	if u.err != io.EOF {
		return u.err
	}
	return nil
}

// inline returns the body if it is short and all of it is at hand, reading it first if its length says
// that it is; nil if it must be sent piece by piece.
func (u *upload) inline(expect bool) ([]byte, error) {
	if len(u.x.req.Trailer) > 0 || expect {
		return nil, nil
	}
	if n := u.x.req.ContentLength; n >= 0 && n <= prefetchLimit && !u.started() {
		u.reading.Lock() // a handler here may have left somebody reading
		err := u.prefetch(int(n))
		u.reading.Unlock()
		if err != nil {
			return nil, err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case !u.whole || u.err != io.EOF || u.total > prefetchLimit:
		return nil, nil
	case u.kept == nil:
		return []byte{}, nil
	}
	return u.kept.b, nil
}

func (u *upload) setLocal(v bool) {
	u.mu.Lock()
	u.local = v
	u.mu.Unlock()
}

// started reports whether a pump reads the client's body.
func (u *upload) started() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.pump != nil
}

// untouched reports that nothing was read yet: the client may still wait for 100-continue.
func (u *upload) untouched() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.total == 0 && u.err == nil
}

func (u *upload) atEOF() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err == io.EOF
}

// failure is what the client did wrong while it sent the body, nil while nothing.
func (u *upload) failure() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == io.EOF {
		return nil
	}
	return u.err
}

// tooSlow reports whether the listener has given the client up because its body came too slowly. That also ends the request's
// context, a moment before the pump's Read returns.
func (u *upload) tooSlow() bool {
	if u == nil {
		return false
	}
	u.mu.Lock()
	pump := u.pump
	u.mu.Unlock()
	if pump != nil {
		limit := time.NewTimer(100 * time.Millisecond)
		defer limit.Stop()
		select {
		case <-pump:
		case <-limit.C:
		}
	}
	return errors.Is(u.failure(), os.ErrDeadlineExceeded)
}

// send begins to send the body on st, from its start, and returns at once; the goroutines that it starts
// end by detach and close.
func (u *upload) send(st *stream, expect bool) {
	u.mu.Lock()
	fresh := u.total == 0 && u.err == nil
	started := u.pump != nil
	if !started {
		u.pump = make(chan struct{})
	}
	u.mu.Unlock()
	if fresh && !started {
		u.attach(st)
		go u.run(expect)
		return
	}
	if !started {
		go u.run(false)
	}
	u.x.helpers.Go(func() { u.replay(st) })
}

func (u *upload) attach(st *stream) {
	u.mu.Lock()
	u.to = st
	u.mu.Unlock()
	signal(u.resume)
}

// detach ends the sending to an attempt that is over; what the pump reads from now on is only kept.
func (u *upload) detach() {
	u.mu.Lock()
	u.to = nil
	u.mu.Unlock()
}

// replay sends what was kept; when it has caught up with the pump, that goes on.
func (u *upload) replay(st *stream) {
	sent := 0
	for {
		u.mu.Lock()
		if !u.whole || u.closed {
			u.mu.Unlock()
			st.cancel(errNotKept, errNotKept.Error())
			return
		}
		var rest []byte
		if u.kept != nil {
			rest = u.kept.b[sent:]
		}
		if len(rest) == 0 {
			if u.err == nil {
				u.to = st
				u.mu.Unlock()
				signal(u.resume)
				return
			}
			err := u.err
			u.mu.Unlock()
			u.finish(st, err)
			return
		}
		rest = append([]byte(nil), rest[:min(len(rest), maxData)]...) // kept may move while it is sent
		u.mu.Unlock()
		n, err := st.write(rest, 0)
		sent += n
		if err != nil {
			return
		}
	}
}

const endedEarly = "the client's request body ended early"

// finish ends the body of an attempt: with its trailers, or broken off.
func (u *upload) finish(st *stream, err error) {
	switch {
	case err != io.EOF:
		st.cancel(&resetError{code: resetCancel, msg: endedEarly}, endedEarly)
	case len(u.x.req.Trailer) > 0:
		b, ok := appendHeader(nil, u.x.req.Trailer, nil)
		if !ok {
			b = nil // net/http takes no trailers of that size itself
		}
		st.endOut()
		_ = st.c.w.frame(frameTrailers, flagEnd, st.id, b, flushInline)
	default:
		_, _ = st.write(nil, flagEnd)
	}
}

// run is the pump: it reads from the client and sends to the attempt of the moment.
func (u *upload) run(expect bool) {
	defer close(u.pump)
	buf := newChunk(maxData)
	defer buf.free()
	p := buf.b[:maxData]
	for {
		st := u.target()
		if st == nil {
			return
		}
		if expect {
			if !st.waitProceed() {
				u.park(st)
				continue
			}
			expect = false
		}
		n, err := u.next(p)
		u.mu.Lock()
		same := u.to == st
		u.mu.Unlock()
		if same && n > 0 {
			_, werr := st.write(p[:n], 0)
			if werr != nil {
				u.park(st)
				same = false
			}
		}
		if err != nil {
			if same {
				u.finish(st, err)
			}
			return // a later attempt replays, and sees err
		}
	}
}

// target waits for an attempt to send to; nil when there will be none.
func (u *upload) target() *stream {
	for {
		u.mu.Lock()
		st, closed := u.to, u.closed
		u.mu.Unlock()
		if closed {
			return nil
		}
		if st != nil {
			return st
		}
		<-u.resume
	}
}

// park stops sending to an attempt that takes no more.
func (u *upload) park(st *stream) {
	u.mu.Lock()
	if u.to == st {
		u.to = nil
	}
	u.mu.Unlock()
}

// close ends the pump and frees what was kept. A Read that waits for the client is woken by a deadline
// in the past; where that cannot be set, the server's own end of the request wakes it.
func (u *upload) close() {
	if u == nil {
		return
	}
	u.mu.Lock()
	u.closed = true
	pump, err := u.pump, u.err
	u.mu.Unlock()
	signal(u.resume)
	if pump != nil {
		select {
		case <-pump:
		default:
			woken := err == nil && u.ctl.SetReadDeadline(aLongTimeAgo) == nil
			if woken || err != nil {
				<-pump
			}
			if woken {
				_ = u.ctl.SetReadDeadline(time.Time{})
			}
		}
	}
	u.mu.Lock()
	u.drop()
	u.mu.Unlock()
}

// localBody is an upload as the request's body of a handler on this node: what was read for an earlier
// attempt comes first.
type localBody struct {
	u   *upload
	run *run
	off int64
}

func (b *localBody) Read(p []byte) (int, error) {
	u := b.u
	if n, err, ok := b.again(p); ok {
		return n, err
	}
	u.reading.Lock()
	defer u.reading.Unlock()
	if n, err, ok := b.again(p); ok { // a pump has read meanwhile
		return n, err
	}
	n, err := u.read(p)
	b.off += int64(n)
	return n, err
}

// again reads what is at hand; ok is false if that is nothing.
func (b *localBody) again(p []byte) (n int, err error, ok bool) {
	u := b.u
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case b.off == u.total:
		return 0, u.err, u.err != nil
	case !u.whole:
		b.run.declined.Store(true)
		return 0, errNotKept, true
	}
	n = copy(p, u.kept.b[b.off:])
	b.off += int64(n)
	return n, nil, true
}

// Close does not close the client's body: if the handler's answer is dropped, the request goes on.
func (b *localBody) Close() error { return nil }
