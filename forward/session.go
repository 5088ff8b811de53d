package forward

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// A session is the standby's side of a connection to the active node.
type session struct {
	*conn
	r        *Router
	follower *follower
	since    time.Time

	lastEcho atomic.Int64 // wall clock, UnixNano; 0: none yet
	rtt      atomic.Int64
	skew     atomic.Int64

	// under conn.mu
	drained bool
	room    chan struct{} // closed when a stream ends; nil while nobody waits for that
}

func newSession(r *Router, f *follower, nc net.Conn) *session {
	s := &session{r: r, follower: f, since: time.Now()}
	s.conn = newConn(nc, hello{
		minVersion: versionMin, maxVersion: versionMax, window: smallWindow, streams: 1,
		nodeID: r.cfg.NodeID, nodeName: r.cfg.Node, info: string(r.cfg.Hello()),
		process: r.slots.prefix, number: f.number<<24 | f.dials.Add(1),
	}, r.cfg.WindowBudget)
	s.role, s.info = s, r.cfg.Hello
	return s
}

// open starts a stream: it numbers the request whose frame is in b, with room for the frame's header at
// the start, and sends it, and with it the body if that is small. The error is errDrained, errFull, or
// that of the connection; then nothing was sent.
func (s *session) open(b []byte, window int, f frameFlags, body []byte) (*stream, error) {
	s.mu.Lock()
	switch {
	case s.err != nil:
		err := s.err
		s.mu.Unlock()
		return nil, err
	case s.drained:
		s.mu.Unlock()
		return nil, errDrained
	case uint64(len(s.streams)) >= s.peer.streams:
		s.mu.Unlock()
		return nil, errFull
	}
	s.lastID++
	st := newStream(s.conn, s.lastID, window, int(s.peer.window)-len(body))
	st.outEnd = f&flagEnd != 0 || body != nil
	patchFrameHeader(b, len(b)-frameHeaderLen, frameRequest, f, st.id)
	// The writer's lock is taken while s.mu is held, so that streams are sent in the order of their
	// numbers: what the peer names as the last one covers exactly those before it.
	if err := s.w.lock(false); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	st.alone = len(s.streams) == 0
	s.streams[st.id] = st
	s.w.crowd.Store(int32(len(s.streams)))
	s.mu.Unlock()
	n := len(s.w.buf)
	st.offset = s.w.queued
	s.w.buf = append(s.w.buf, b...)
	if body != nil {
		s.w.buf = appendFrameHeader(s.w.buf, len(body), frameData, flagEnd, st.id)
		s.w.buf = append(s.w.buf, body...)
	}
	s.w.unlock(n, flushInline)
	return st, nil
}

// end takes a stream off. The caller reads it no more.
func (s *session) end(st *stream) {
	s.mu.Lock()
	delete(s.streams, st.id)
	s.w.crowd.Store(int32(len(s.streams)))
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	finished := s.drained && len(s.streams) == 0
	s.mu.Unlock()
	st.close()
	if finished {
		s.fail(ErrClosed)
	}
}

// waitRoom is closed when a stream has ended.
func (s *session) waitRoom() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.drained || uint64(len(s.streams)) < s.peer.streams {
		return closedChan
	}
	if s.room == nil {
		s.room = make(chan struct{})
	}
	return s.room
}

var closedChan = func() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

func (s *session) request(frameHeader, []byte) error {
	return fmt.Errorf("%w: a request from the active node", errProtocol)
}

// state: the payload is whether the peer leads, and its term.
func (s *session) state(payload string) error {
	d := decoder{s: payload}
	leading, term := d.u8() == 1, d.uvarint()
	if d.bad {
		return fmt.Errorf("%w: state", errProtocol)
	}
	s.r.sessionState(s, leading && term == s.follower.target.Term)
	return nil
}

// goaway: the payload is the last accepted stream, and the reason. Streams behind it are failed as not
// processed: nobody has looked at them.
func (s *session) goaway(payload string) error {
	d := decoder{s: payload}
	last, reason := d.uvarint(), d.str()
	if d.bad {
		return fmt.Errorf("%w: goaway", errProtocol)
	}
	s.mu.Lock()
	s.drained = true
	var behind []*stream
	for id, st := range s.streams {
		if id > last {
			behind = append(behind, st)
		}
	}
	idle := len(s.streams) == 0
	s.mu.Unlock()
	s.r.sessionDrained(s, reason)
	for _, st := range behind {
		st.fail(&resetError{code: resetNotProcessed, msg: "the active node steps down"})
	}
	if idle {
		return ErrClosed
	}
	return nil
}

func appendGoaway(b []byte, last uint64, reason string) []byte {
	return appendString(binary.AppendUvarint(b, last), reason)
}

func appendState(b []byte, leading bool, term uint64) []byte {
	v := byte(0)
	if leading {
		v = 1
	}
	return binary.AppendUvarint(append(b, v), term)
}

func (s *session) echoed(info string, rtt, skew time.Duration) {
	s.lastEcho.Store(time.Now().UnixNano())
	s.rtt.Store(int64(rtt))
	s.skew.Store(int64(skew))
	s.r.cfg.OnHello(s.follower.target.NodeID, []byte(info), rtt, skew)
}

func (s *session) said(info string) {
	s.r.cfg.OnHello(s.follower.target.NodeID, []byte(info), time.Duration(s.rtt.Load()), time.Duration(s.skew.Load()))
}

func (s *session) lost(error) {
	s.mu.Lock()
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	s.mu.Unlock()
	s.r.sessionLost(s)
}
