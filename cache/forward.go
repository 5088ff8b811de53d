package cache

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// On a connection for writes a node sends frames of requests to the leader: each is an id, a kind, and for a
// write its level and the request as it goes into the log. The leader answers in any order, in frames of
// answers: an id, a status, and what belongs to it. The kinds and statuses are part of the protocol.
const (
	askWrite byte = 1
	askRead  byte = 2 // up to where must the log be applied for a consistent read

	answerDone    byte = 0 // index, response
	answerNotDone byte = 1 // certainly not; another leader may be asked
	answerUnknown byte = 2 // message
	answerBusy    byte = 3
	answerInvalid byte = 4

	frameRequests byte = 1
	frameAnswers  byte = 2
	frameGoodbye  byte = 3 // the leader stops: the last request that it has taken; those after it were not
)

// writeServer is the leader's end of a connection for writes.
type writeServer struct {
	m    *member
	peer string // who asks
	conn net.Conn
	over chan struct{} // closed when its requests have all been taken in
	said chan struct{} // closed when it has ended

	mu     sync.Mutex
	out    []byte // a frame of answers that wait
	wake   chan struct{}
	closed bool
	last   uint64 // the last request taken; owned by read
}

// serveWrites takes requests in until the connection ends. A newer connection from the same node ends it
// first: so what was given up on the old one is never carried out after what is asked on the new one.
func (m *member) serveWrites(conn net.Conn, h hello) {
	s := &writeServer{m: m, peer: h.from, conn: conn, over: make(chan struct{}), said: make(chan struct{}), wake: make(chan struct{}, 1)}
	m.writersMu.Lock()
	if m.ctx.Err() != nil { // who closes the member may have looked for the connections already
		m.writersMu.Unlock()
		_ = conn.Close()
		return
	}
	old := m.writers[h.from]
	m.writers[h.from] = s
	m.writersMu.Unlock()
	if old != nil {
		old.close()
		<-old.over
	}
	defer close(s.said)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.write()
	}()
	err := s.read()
	close(s.over)
	if m.ctx.Err() != nil {
		<-m.quiet // what was taken is answered now
		s.goodbye()
	}
	s.close()
	<-done
	_ = conn.Close()
	m.writersMu.Lock()
	if m.writers[h.from] == s {
		delete(m.writers, h.from)
	}
	m.writersMu.Unlock()
	if err != nil && m.ctx.Err() == nil {
		m.cfg.Logger.Debug("connection for writes ended", "host", h.host, "error", err)
	}
}

func (s *writeServer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.wake)
	}
	_ = s.conn.Close()
}

// goodbye ends the connection in an orderly way, after all answers.
func (s *writeServer) goodbye() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	close(s.wake)
	var frames []byte
	if len(s.out) > 0 {
		frames, s.out = endFrame(s.out), nil
	}
	bye := endFrame(binary.AppendUvarint(beginFrame(nil, frameGoodbye), s.last))
	if s.conn.SetWriteDeadline(time.Now().Add(time.Second)) == nil {
		_, _ = s.conn.Write(append(frames, bye...)) // who does not get it takes what it asked for unknown
	}
}

func (s *writeServer) read() error {
	r := bufio.NewReaderSize(s.conn, 64<<10)
	for {
		frame, err := readFrame(r, nil) // requests keep it
		if err != nil {
			return err
		}
		if frame[0] != frameRequests {
			return fmt.Errorf("%w frame of kind %d", errFormat, frame[0])
		}
		s.m.book.asks(s.peer)
		d := decoder{b: frame[1:]}
		for len(d.b) > 0 {
			id := d.uvarint()
			s.last = id
			switch kind := d.byte(); kind {
			case askWrite:
				p := &pending{id: id, level: Level(d.byte()), data: d.bytes(), conn: s}
				if d.bad {
					return d.end("request")
				}
				s.submit(p)
			case askRead:
				s.m.background(func() { s.readIndex(id) })
			default:
				return fmt.Errorf("%w request of kind %d", errFormat, kind)
			}
		}
		if d.bad {
			return d.end("request")
		}
	}
}

// submit checks a forwarded request like one of this node's own: nothing malformed enters the log.
func (s *writeServer) submit(p *pending) {
	d := decoder{b: p.data}
	r := d.request(nil)
	err := d.end("request")
	if err == nil {
		var level Level
		if level, err = check(p.level, &r); level != p.level && err == nil {
			err = ErrInvalid
		}
	}
	if len(p.data) > maxTxn { // it could not be sent on to the others
		err = ErrTooLarge
	}
	if err != nil {
		p.finish(outcome{err: fmt.Errorf("%w: %w", ErrInvalid, err)})
		return
	}
	l := s.m.lead.Load()
	if l == nil {
		p.finish(outcome{err: errNotLeader})
		return
	}
	l.submit(p)
}

func (s *writeServer) readIndex(id uint64) {
	l := s.m.lead.Load()
	if l == nil {
		s.answer(id, outcome{err: errNotLeader})
		return
	}
	ctx, cancel := context.WithTimeoutCause(s.m.ctx, s.m.cfg.OperationTimeout, errTimeout)
	defer cancel()
	index, err := l.readIndex(ctx)
	s.answer(id, outcome{index: index, err: err})
}

// linkBytes is how many bytes of requests, or one larger request, may wait to be sent to the leader: they become one frame.
const linkBytes = 64 << 20

// maxAnswers is how many bytes of answers may wait for a node that does not read them, but for those without a value.
const maxAnswers = 64 << 20

func (s *writeServer) answer(id uint64, out outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	b := s.out
	if len(b) == 0 {
		b = beginFrame(b, frameAnswers)
	}
	b = binary.AppendUvarint(b, id)
	switch {
	case out.err == nil && len(b)+out.resp.values() > maxAnswers: // this one alone, not the connection of all
		b = appendBytes(append(b, answerUnknown), "it was carried out; too many bytes of answers wait for the node that asked")
	case out.err == nil:
		b = binary.AppendUvarint(append(b, answerDone), out.index)
		b = appendResponse(b, &out.resp)
	case errors.Is(out.err, ErrUnknown): // before those that say "certainly not", whatever else it is
		b = appendBytes(append(b, answerUnknown), out.err.Error())
	case errors.Is(out.err, ErrBusy):
		b = append(b, answerBusy)
	case errors.Is(out.err, ErrInvalid):
		b = append(b, answerInvalid)
	case errors.Is(out.err, ErrNotDone):
		b = append(b, answerNotDone)
	default:
		b = appendBytes(append(b, answerUnknown), out.err.Error())
	}
	if s.out = b; len(b) > maxFrame-1<<20 {
		_ = s.conn.Close()
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write sends the answers, as many at once as there are.
func (s *writeServer) write() {
	var spare []byte
	for range s.wake {
		s.mu.Lock()
		out := s.out
		s.out = spare[:0]
		s.mu.Unlock()
		if len(out) == 0 {
			spare = out
			continue
		}
		if err := s.conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
			s.close()
			return
		}
		if _, err := s.conn.Write(endFrame(out)); err != nil {
			s.close()
			return
		}
		if spare = out; cap(spare) > keepMessage {
			spare = nil
		}
	}
}

// leaderLink is a node's connection to the leader, shared by all its callers.
type leaderLink struct {
	leader string // identity
	conn   net.Conn
	work   *sync.WaitGroup

	mu      sync.Mutex
	out     []byte
	writing bool
	waiting map[uint64]chan outcome
	last    uint64
	err     error
}

// ask sends a request and returns where the answer will come, and a way to give up on it.
func (l *leaderLink) ask(kind byte, level Level, data []byte) (<-chan outcome, func(), error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return nil, nil, errNotLeader
	}
	if len(l.waiting) >= queueEntries || len(l.out) > 0 && len(l.out)+len(data) > linkBytes {
		l.mu.Unlock()
		return nil, nil, fmt.Errorf("%w: %w", ErrNotDone, ErrBusy)
	}
	l.last++
	id, ch := l.last, make(chan outcome, 1)
	l.waiting[id] = ch
	if len(l.out) == 0 {
		l.out = append(l.out, 0, 0, 0, 0, frameRequests)
	}
	l.out = append(binary.AppendUvarint(l.out, id), kind)
	if kind == askWrite {
		l.out = appendBytes(append(l.out, byte(level)), data)
	}
	mine := !l.writing
	l.writing = true
	l.mu.Unlock()
	if mine {
		l.flush(true)
	}
	return ch, func() {
		l.mu.Lock()
		delete(l.waiting, id)
		l.mu.Unlock()
	}, nil
}

// flush writes what waits, and what came meanwhile. A caller writes once, for the others too; then somebody
// else goes on.
func (l *leaderLink) flush(caller bool) {
	var spare []byte
	for first := true; ; first = false {
		l.mu.Lock()
		out := l.out
		if len(out) == 0 || l.err != nil {
			l.writing = false
			l.mu.Unlock()
			return
		}
		if !first && caller {
			l.mu.Unlock()
			l.work.Go(func() { l.flush(false) })
			return
		}
		l.out = spare[:0]
		l.mu.Unlock()
		err := l.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if err == nil {
			_, err = l.conn.Write(endFrame(out))
		}
		if err != nil {
			l.fail(err)
		}
		if spare = out; cap(spare) > keepMessage {
			spare = nil
		}
	}
}

// refused answers the requests that the leader has not taken any more.
func (l *leaderLink) refused(last uint64) {
	l.mu.Lock()
	var chs []chan outcome
	for id, ch := range l.waiting {
		if id > last {
			chs = append(chs, ch)
			delete(l.waiting, id)
		}
	}
	l.mu.Unlock()
	for _, ch := range chs {
		ch <- outcome{err: errNotLeader}
	}
}

func (l *leaderLink) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err == nil
}

// fail ends the connection. What was asked and not answered has an unknown outcome.
func (l *leaderLink) fail(err error) {
	_ = l.conn.Close()
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	waiting := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for _, ch := range waiting {
		ch <- outcome{err: fmt.Errorf("%w: the connection to the leader ended: %w", ErrUnknown, err)}
	}
}

// read passes the answers on until the connection ends.
func (l *leaderLink) read() {
	r := bufio.NewReaderSize(l.conn, 64<<10)
	for {
		frame, err := readFrame(r, nil) // results keep it
		if err != nil {
			l.fail(err)
			return
		}
		d := decoder{b: frame[1:]}
		if frame[0] == frameGoodbye {
			l.refused(d.uvarint())
			l.fail(errStopping)
			return
		}
		for len(d.b) > 0 {
			id := d.uvarint()
			out := d.outcome()
			if d.bad {
				l.fail(d.end("answer"))
				return
			}
			l.mu.Lock()
			ch := l.waiting[id]
			delete(l.waiting, id)
			l.mu.Unlock()
			if ch != nil {
				ch <- out
			}
		}
	}
}

func (d *decoder) outcome() outcome {
	switch status := d.byte(); status {
	case answerDone:
		return outcome{index: d.uvarint(), resp: d.response()}
	case answerNotDone:
		return outcome{err: errNotLeader}
	case answerBusy:
		return outcome{err: fmt.Errorf("%w: %w", ErrNotDone, ErrBusy)}
	case answerInvalid:
		return outcome{err: fmt.Errorf("%w: %w", ErrNotDone, ErrInvalid)}
	case answerUnknown:
		return outcome{err: fmt.Errorf("%w: %s", ErrUnknown, d.string())}
	}
	d.fail()
	return outcome{}
}
