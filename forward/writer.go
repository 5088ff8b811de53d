package forward

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// queueLimit is how much may wait for the connection before body bytes wait too. Heads and
	// control frames always find room: their number is bounded by that of the streams.
	queueLimit = 256 << 10
	// keepBuffer is the largest buffer that is kept for the next batch.
	keepBuffer = 512 << 10
)

// A writer puts frames on a connection in batches: whoever finds no flush going on writes what has
// gathered, and everybody else only adds to the batch. So a lone request costs no change of goroutine,
// and under load many frames share a TLS record and a system call.
//
// The reader of the connection must never flush itself: if both sides' readers waited for the other to
// read, neither would. It leaves that to loop, as does a flusher that finds more to do after its batch.
type writer struct {
	conn net.Conn
	fail func(error) // told once of the first write error

	mu       sync.Mutex
	space    sync.Cond // the queue fell below its limit, or err is set
	buf      []byte    // frames not yet given to conn
	spare    []byte
	flushing bool
	err      error
	queued   uint64 // bytes ever added
	handed   uint64 // bytes ever given to conn.Write: what lies behind was certainly not delivered

	kick chan struct{} // wakes loop

	crowd atomic.Int32 // open streams: who may be about to add a frame
}

func newWriter(c net.Conn, fail func(error)) *writer {
	w := &writer{conn: c, fail: fail, kick: make(chan struct{}, 1)}
	w.space.L = &w.mu
	return w
}

type flushMode uint8

const (
	flushInline flushMode = iota // the caller may write itself
	flushAsync                   // the caller is a connection's reader
)

// lock begins a group of frames; the caller appends to w.buf and calls unlock. With body, it waits
// until the queue has room.
func (w *writer) lock(body bool) error {
	w.mu.Lock()
	for body && w.err == nil && len(w.buf) > queueLimit {
		w.space.Wait()
	}
	if w.err != nil {
		err := w.err
		w.mu.Unlock()
		return err
	}
	return nil
}

// unlock ends the group that began when the queue was n bytes long, and sees to it that it is sent.
func (w *writer) unlock(n int, mode flushMode) {
	w.queued += uint64(len(w.buf) - n)
	if w.flushing {
		w.mu.Unlock()
		return
	}
	w.flushing = true
	crowd := w.crowd.Load() > 1
	w.mu.Unlock()
	if mode == flushAsync {
		w.wake()
		return
	}
	if crowd {
		// Let those who are about to add a frame do so: one system call for all of them.
		runtime.Gosched()
	}
	if w.flush() {
		w.wake()
	}
}

// frame sends one frame that holds no body bytes.
func (w *writer) frame(t frameType, f frameFlags, stream uint64, payload []byte, mode flushMode) error {
	if err := w.lock(false); err != nil {
		return err
	}
	n := len(w.buf)
	w.buf = appendFrame(w.buf, t, f, stream, payload)
	w.unlock(n, mode)
	return nil
}

// bodyFrame sends one DATA frame, after waiting for room in the queue.
func (w *writer) bodyFrame(f frameFlags, stream uint64, payload []byte) error {
	if err := w.lock(true); err != nil {
		return err
	}
	n := len(w.buf)
	w.buf = appendFrame(w.buf, frameData, f, stream, payload)
	w.unlock(n, flushInline)
	return nil
}

// flush writes one batch. The caller holds the flushing flag; if flush returns true, there is more and
// it still does, else it has given the flag up.
func (w *writer) flush() (more bool) {
	w.mu.Lock()
	if w.err != nil || len(w.buf) == 0 {
		w.flushing = false
		w.mu.Unlock()
		return false
	}
	b := w.buf
	w.buf, w.spare = w.spare, nil
	w.handed = w.queued
	w.space.Broadcast()
	w.mu.Unlock()

	_, err := w.conn.Write(b)
	if err != nil {
		w.close(err)
		w.fail(err)
		return false
	}

	w.mu.Lock()
	if cap(b) <= keepBuffer {
		w.spare = b[:0]
	}
	if len(w.buf) == 0 || w.err != nil {
		w.flushing = false
		w.mu.Unlock()
		return false
	}
	w.mu.Unlock()
	return true
}

func (w *writer) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// loop flushes for those who may not. It returns when stop is closed.
func (w *writer) loop(stop <-chan struct{}) {
	for {
		select {
		case <-w.kick:
			for w.flush() {
				runtime.Gosched()
			}
		case <-stop:
			return
		}
	}
}

// close makes every further write fail with err; the first call wins. What was queued and not handed
// to the connection by now never will be.
func (w *writer) close(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.space.Broadcast()
	w.mu.Unlock()
}

// delivered reports whether bytes from offset on may have reached the peer. It is final once the
// writer is closed.
func (w *writer) delivered(offset uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.handed > offset
}
