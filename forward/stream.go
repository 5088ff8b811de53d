package forward

import (
	"fmt"
	"io"
	"sync"
)

// A stream is one request and its answer on a connection, seen from either side: a queue of received
// heads and body bytes, a window for each direction, and how it ended.
//
// The connection's reader fills it and never waits for it; one goroutine at a time reads it and one
// writes it.
type stream struct {
	id     uint64
	c      *conn
	offset uint64 // where its REQUEST lies in what the writer was given (standby)
	alone  bool   // no other was open when it was opened (standby)

	readable chan struct{} // something arrived; capacity 1
	writable chan struct{} // the window opened or the stream ended; capacity 1

	mu       sync.Mutex
	heads    []head // standby: INFO and RESPONSE, in order
	in       *chunk // received, from inOff on not yet consumed: a queue
	inLast   *chunk
	inOff    int  // in the first chunk
	inFlush  bool // what is in `in` is to be passed on at once
	inEnd    bool // no body bytes will follow
	trailers string
	inWindow int // bytes that the peer may still send
	inMax    int // what the window can be at most
	reserved int // from the budget: that, and what else the stream holds
	owed     int // consumed, not yet granted again
	out      int // bytes that may still be sent
	outEnd   bool
	stopped  bool // the peer wants no more body bytes
	proceed  bool // the peer's handler wants the body (Expect: 100-continue)
	err      error
	onFail   func(error) // called once when err is set by fail

	readDeadline, writeDeadline deadline
}

type head struct {
	typ     frameType
	flags   frameFlags
	payload string
}

func newStream(c *conn, id uint64, in, out int) *stream {
	return &stream{
		id: id, c: c, inWindow: in, inMax: in, reserved: in, out: out,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// receiveData is called by the connection's reader; b is only valid during the call.
func (st *stream) receiveData(b []byte, f frameFlags) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return nil
	}
	if st.inEnd || len(b) > st.inWindow {
		return fmt.Errorf("%w: %d bytes on stream %d with a window of %d", errProtocol, len(b), st.id, st.inWindow)
	}
	st.inWindow -= len(b)
	if len(b) > 0 {
		st.enqueue(b)
	}
	st.inEnd = st.inEnd || f&flagEnd != 0
	st.inFlush = st.inFlush || f&flagFlush != 0
	return nil
}

// maxInfos is how many informational heads may wait for the standby's client.
const maxInfos = 16

// queueChunk is what a stream's queue grows by once it is not tiny any more.
const queueChunk = 64 << 10

func (st *stream) enqueue(b []byte) {
	switch last := st.inLast; {
	case last == nil:
		st.in = newChunk(len(b))
		st.inLast = st.in
	case cap(last.b)-len(last.b) < len(b):
		last.next = newChunk(max(len(b), min(4*cap(last.b), queueChunk)))
		st.inLast = last.next
	}
	st.inLast.b = append(st.inLast.b, b...)
}

func (st *stream) receiveHead(h head) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.inEnd {
		return fmt.Errorf("%w: head after the end", errProtocol)
	}
	if h.typ == frameInfo && len(st.heads) >= maxInfos {
		return nil // they inform, and may be lost
	}
	st.heads = append(st.heads, h)
	st.inEnd = h.flags&flagEnd != 0
	return nil
}

func (st *stream) receiveTrailers(payload string) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.inEnd {
		return fmt.Errorf("%w: trailers after the end", errProtocol)
	}
	st.trailers, st.inEnd = payload, true
	return nil
}

func (st *stream) receiveWindow(n uint64, f frameFlags) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if n > maxWindow || st.out+int(n) > maxWindow {
		return fmt.Errorf("%w: window of stream %d too large", errProtocol, st.id)
	}
	st.out += int(n)
	if f&flagContinue != 0 {
		st.proceed = true
	}
	signal(st.writable)
	return nil
}

func (st *stream) receiveStop() {
	st.mu.Lock()
	st.stopped = true
	st.mu.Unlock()
	signal(st.writable)
	signal(st.readable)
}

// fail ends the stream for both directions; the first call wins. Body bytes that were received before
// can still be read.
func (st *stream) fail(err error) {
	st.mu.Lock()
	var tell func(error)
	if st.err == nil {
		st.err, tell = err, st.onFail
	}
	st.mu.Unlock()
	if tell != nil {
		tell(err)
	}
	signal(st.readable)
	signal(st.writable)
}

// cancel ends the stream from this side. It fails here first: what the peer makes of the reset must not be taken for the cause.
func (st *stream) cancel(err error, msg string) {
	st.fail(err)
	st.c.reset(st.id, resetCancel, msg, flushInline)
}

// open sets the window for the answer, and has f called when the stream fails, at once if it has.
func (st *stream) open(window int, f func(error)) {
	st.mu.Lock()
	st.out, st.onFail = window, f
	err := st.err
	st.mu.Unlock()
	if err != nil {
		f(err)
	}
}

// ended: no body bytes will arrive any more.
func (st *stream) ended() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.inEnd || st.err != nil
}

// reopen lets bytes be sent behind a head that was the last frame: a tunnel.
func (st *stream) reopen() {
	st.mu.Lock()
	st.outEnd = false
	st.mu.Unlock()
}

// endOut notes that the last frame was sent by other means than write.
func (st *stream) endOut() {
	st.mu.Lock()
	st.outEnd = true
	st.mu.Unlock()
}

// over: both directions have ended (upwards also when the peer reads no more), or the stream has failed.
func (st *stream) over() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err != nil || st.inEnd && (st.outEnd || st.stopped)
}

// noBody: the head was the last frame.
func (st *stream) noBody() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.inEnd && st.inMax == 0
}

// failed is why the stream ended, nil while it has not.
func (st *stream) failed() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err
}

// nextHead takes the next head, if one has arrived. The error is that of the stream, once no head is left.
func (st *stream) nextHead() (head, bool, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.heads) == 0 {
		return head{}, false, st.err
	}
	h := st.heads[0]
	st.heads = st.heads[1:]
	return h, true, nil
}

// worthwhile: the body has ended, is to be passed on as far as it has come, or has come as far as it can
// without being read.
func (st *stream) worthwhile() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.inEnd || st.inFlush || st.err != nil || st.inMax-st.inWindow >= min(answerBuffer, st.inMax)
}

// broken is why the body will not be whole, nil if nothing says so.
func (st *stream) broken() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.inEnd {
		return nil
	}
	return st.err
}

// taken is what take found.
type taken struct {
	c        *chunk // a queue; nil if there was nothing; to be given to consumed
	off      int    // in the first chunk
	flush    bool
	end      bool // nothing follows
	trailers string
	err      error // the stream failed, and nothing follows what was taken
}

// take hands over all body bytes that have arrived, and how they end if that is known: what came in one go is told by one
// signal, so that nobody may wait for another.
func (st *stream) take() taken {
	st.mu.Lock()
	defer st.mu.Unlock()
	t := taken{c: st.in, off: st.inOff, flush: st.inFlush, end: st.inEnd, trailers: st.trailers}
	st.in, st.inLast, st.inOff, st.inFlush = nil, nil, 0, false
	if !t.end {
		t.err = st.err
	}
	return t
}

// writeTo writes what was taken to w, gives the memory back and lets the peer send as much again.
func (t *taken) writeTo(st *stream, w io.Writer) error {
	n, off := 0, t.off
	var err error
	for c := t.c; c != nil; {
		if err == nil {
			_, err = w.Write(c.b[off:])
		}
		n += len(c.b) - off
		off = 0
		next := c.next
		c.free()
		c = next
	}
	t.c = nil
	if n > 0 {
		st.grant(n)
	}
	return err
}

// read copies body bytes to p, waiting for them. It is the active side's request body, and both ends'
// tunnel. io.EOF at the end.
func (st *stream) read(p []byte) (int, error) {
	for {
		if st.readDeadline.over() {
			return 0, errDeadline
		}
		st.mu.Lock()
		if st.in != nil {
			n := copy(p, st.in.b[st.inOff:])
			st.inOff += n
			if st.inOff == len(st.in.b) {
				next := st.in.next
				st.in.free()
				st.in, st.inOff = next, 0
				if next == nil {
					st.inLast = nil
				}
			}
			st.mu.Unlock()
			st.grant(n)
			return n, nil
		}
		end, err := st.inEnd, st.err
		st.mu.Unlock()
		if end {
			return 0, io.EOF
		}
		if err != nil {
			return 0, err
		}
		if len(p) == 0 {
			return 0, nil
		}
		if err := st.wait(st.readable, &st.readDeadline); err != nil {
			return 0, err
		}
	}
}

func (st *stream) wait(ready chan struct{}, d *deadline) error {
	select {
	case <-ready:
		return nil
	case <-d.expired():
		return errDeadline
	}
}

// grant tells the peer that n bytes were consumed, once that is worth a frame, and lets the window grow
// while the connection's budget has room.
func (st *stream) grant(n int) {
	st.mu.Lock()
	st.owed += n
	if st.inEnd || st.err != nil || st.owed < st.inMax/2 || st.inMax == 0 {
		st.mu.Unlock()
		return
	}
	give := st.owed
	st.owed = 0
	if st.inMax < maxWindow && st.c.budget.reserve(min(st.inMax, maxWindow-st.inMax), 3) {
		more := min(st.inMax, maxWindow-st.inMax)
		st.inMax += more
		st.reserved += more
		give += more
	}
	st.inWindow += give
	st.mu.Unlock()
	_ = st.c.sendWindow(st.id, give, 0) // a broken connection fails the stream by itself
}

// write sends p as body bytes, waiting for the peer's window. The flags go with the last frame.
func (st *stream) write(p []byte, f frameFlags) (int, error) {
	sent := 0
	for {
		if st.writeDeadline.over() {
			return sent, errDeadline
		}
		st.mu.Lock()
		err, stopped := st.err, st.stopped || st.outEnd
		n := min(len(p), st.out, maxData)
		if err == nil && !stopped {
			st.out -= n
			if n == len(p) && f&flagEnd != 0 {
				st.outEnd = true
			}
		}
		st.mu.Unlock()
		switch {
		case err != nil:
			return sent, err
		case stopped:
			return sent, errStopped
		case n == 0 && len(p) > 0:
			if err := st.wait(st.writable, &st.writeDeadline); err != nil {
				return sent, err
			}
			continue
		}
		last := n == len(p)
		ff := frameFlags(0)
		if last {
			ff = f
		}
		if err := st.c.w.bodyFrame(ff, st.id, p[:n]); err != nil {
			return sent, err
		}
		sent += n
		p = p[n:]
		if last {
			return sent, nil
		}
	}
}

// waitProceed waits until the peer's handler wants the body (Expect: 100-continue). False: it never will.
func (st *stream) waitProceed() bool {
	for {
		st.mu.Lock()
		proceed, over := st.proceed, st.err != nil || st.stopped
		st.mu.Unlock()
		switch {
		case over:
			return false
		case proceed:
			return true
		}
		<-st.writable
	}
}

// canSend takes n from the window if that is open for all of it.
func (st *stream) canSend(n int) bool {
	if st.writeDeadline.over() {
		return false
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil || st.stopped || st.outEnd || st.out < n {
		return false
	}
	st.out -= n
	return true
}

// close frees what the stream holds. The caller has taken it off the connection, and nobody reads it
// any more.
func (st *stream) close() {
	st.mu.Lock()
	if st.err == nil {
		st.err = ErrClosed
	}
	in, reserved := st.in, st.reserved
	st.in, st.inLast, st.inMax, st.reserved, st.heads = nil, nil, 0, 0, nil
	st.mu.Unlock()
	in.freeAll()
	st.c.budget.release(reserved)
	signal(st.readable)
	signal(st.writable)
}
