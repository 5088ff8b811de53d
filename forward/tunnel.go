package forward

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// tunnel is a client's connection that a handler on the active node has taken over: raw bytes both ways,
// with half-close, through the standby that holds the real one.
type tunnel struct {
	s    *served
	once sync.Once
}

// newTunnel tells the standby to take the client's connection over.
func newTunnel(s *served) (*tunnel, error) {
	st := s.st
	if !s.c.budget.reserve(bodyWindow, 4) {
		return nil, errFull
	}
	st.mu.Lock()
	if !st.inEnd || st.inMax != 0 {
		st.mu.Unlock()
		s.c.budget.release(bodyWindow)
		return nil, errors.New("forward: Hijack of a request with a body")
	}
	st.inEnd, st.inWindow, st.inMax = false, bodyWindow, bodyWindow
	st.reserved += bodyWindow
	st.mu.Unlock()
	t := &tunnel{s: s}
	s.takenOver(t.kill)
	if err := s.c.w.frame(frameResponse, flagHijack, st.id, nil, flushInline); err != nil {
		t.kill()
		return nil, err
	}
	return t, nil
}

func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.s.st.read(p)
	return n, t.opError("read", err)
}

// Write asks the lease as every answer does: what a deposed node says must not pass for the truth.
func (t *tunnel) Write(p []byte) (int, error) {
	if !t.s.exempt.Load() && !t.s.t.valid() {
		t.kill()
		return 0, t.opError("write", ErrDeposed)
	}
	n, err := t.s.st.write(p, flagFlush)
	return n, t.opError("write", err)
}

func (t *tunnel) opError(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: "locum", Addr: t.RemoteAddr(), Err: err}
}

// CloseWrite is the half-close: the client reads the end, and may go on writing.
func (t *tunnel) CloseWrite() error {
	_, err := t.s.st.write(nil, flagEnd|flagFlush)
	return err
}

func (t *tunnel) Close() error {
	t.once.Do(func() {
		t.s.st.writeDeadline.set(time.Time{}) // the end takes no room, so it does not wait
		_ = t.CloseWrite()
		_ = t.s.c.w.frame(frameStop, 0, t.s.st.id, nil, flushInline)
		t.release()
	})
	return nil
}

// kill ends the tunnel without its handler. It does not wait for the network.
func (t *tunnel) kill() {
	t.s.st.fail(ErrClosed)
	t.once.Do(func() {
		t.s.c.reset(t.s.st.id, resetAborted, "", flushAsync)
		t.release()
	})
}

func (t *tunnel) release() {
	t.s.st.readDeadline.stop()
	t.s.st.writeDeadline.stop()
	t.s.finish()
}

func (t *tunnel) LocalAddr() net.Addr  { return t.s.c.nc.LocalAddr() }
func (t *tunnel) RemoteAddr() net.Addr { return addr(t.s.info.RemoteAddr) }

func (t *tunnel) SetDeadline(at time.Time) error {
	t.s.st.readDeadline.set(at)
	t.s.st.writeDeadline.set(at)
	return nil
}

func (t *tunnel) SetReadDeadline(at time.Time) error {
	t.s.st.readDeadline.set(at)
	return nil
}

func (t *tunnel) SetWriteDeadline(at time.Time) error {
	t.s.st.writeDeadline.set(at)
	return nil
}

// addr is a client's address as the standby saw it.
type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }
