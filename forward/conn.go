package forward

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

const (
	handshakeTimeout = 5 * time.Second
	echoInterval     = time.Second
	// silentEchoes is how many echo intervals may pass without a single frame before the connection is
	// given up. They are counted, not measured: a node that was itself stopped for a while must not take
	// that for its peer's silence.
	silentEchoes = 5
)

// A role is what differs between the two sides of a connection. Its methods are called by the reader
// and must not wait.
type role interface {
	request(h frameHeader, payload []byte) error // active side only
	state(payload string) error                  // standby side only
	goaway(payload string) error                 // standby side only
	echoed(info string, rtt, skew time.Duration)
	said(info string) // like echoed, when it has changed
	lost(err error)   // before the streams are failed
}

// conn is one forwarding connection, the same on both sides.
type conn struct {
	nc     net.Conn
	polled *quickio.Polled // nil: reads wait
	br     *bufio.Reader   // under reading, once the connection runs
	w      *writer
	role   role
	local  hello
	peer   hello
	budget budget
	info   func() []byte

	stop   chan struct{} // closed by fail
	synced chan struct{} // the answer to sync has arrived; capacity 1
	news   chan struct{} // info has changed; capacity 1

	mu      sync.Mutex
	streams map[uint64]*stream
	lastID  uint64
	err     error

	heard atomic.Bool               // a frame arrived since the last echo
	asked atomic.Pointer[time.Time] // when the last echo was sent

	reading sync.Mutex
	lazy    []*stream // to be woken before the reader waits
	large   large
	spin    spinner
	said    string // the node info of the last question
}

// large is a frame that does not fit the read buffer, while it arrives.
type large struct {
	h       frameHeader
	payload []byte // nil: there is none
	n       int
}

func newConn(nc net.Conn, local hello, budgetBytes int64) *conn {
	c := &conn{
		nc: nc, polled: quickio.PolledOf(nc), local: local,
		br:      bufio.NewReaderSize(nc, maxPlain+frameHeaderLen),
		streams: make(map[uint64]*stream),
		stop:    make(chan struct{}),
		synced:  make(chan struct{}, 1),
		news:    make(chan struct{}, 1),
	}
	c.budget.limit = budgetBytes
	c.w = newWriter(nc, c.fail)
	return c
}

// handshake exchanges magic and hello. Both sides send first, so it costs one round trip at most.
func (c *conn) handshake(ctx context.Context) error {
	undo := context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })
	defer undo()
	_ = c.nc.SetDeadline(time.Now().Add(handshakeTimeout))
	out := append(make([]byte, 0, 512), magic...)
	payload := c.local.append(nil)
	out = appendFrameHeader(out, len(payload), frameHello, 0, 0)
	out = append(out, payload...)
	sent := make(chan error, 1)
	go func() { // both sides write first: neither may wait for the other to read
		_, err := c.nc.Write(out)
		sent <- err
	}()
	readErr := c.readHello()
	if readErr != nil {
		c.fail(readErr) // ends the write too
	}
	writeErr := <-sent
	if err := errors.Join(readErr, writeErr); err != nil {
		c.fail(err)
		return fmt.Errorf("forward: handshake: %w", err)
	}
	_ = c.nc.SetDeadline(time.Time{})
	return nil
}

func (c *conn) readHello() error {
	b, err := c.br.Peek(len(magic) + frameHeaderLen)
	if err != nil {
		return err
	}
	if string(b[:len(magic)]) != magic {
		return fmt.Errorf("%w: preface", errProtocol)
	}
	h, err := parseFrameHeader(b[len(magic):])
	if err != nil {
		return err
	}
	if h.typ != frameHello {
		return fmt.Errorf("%w: frame of type %d before hello", errProtocol, h.typ)
	}
	_, _ = c.br.Discard(len(b))
	payload := make([]byte, h.length)
	if _, err := io.ReadFull(c.br, payload); err != nil {
		return err
	}
	c.peer, err = decodeHello(string(payload))
	return err
}

// run serves the connection until it ends or ctx does, and returns why, when all its goroutines have
// ended. The handshake is done.
func (c *conn) run(ctx context.Context) error {
	undo := context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })
	defer undo()
	var wg sync.WaitGroup
	if c.polled != nil {
		c.polled.NoWait()
	}
	wg.Go(func() { c.w.loop(c.stop) })
	wg.Go(c.watch)
	c.fail(c.readLoop())
	wg.Wait()
	return c.failure()
}

func (c *conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the connection at once, and with it every stream; the first call wins. It never waits for
// the peer: the raw connection is closed, with no farewell that a frozen peer would not read.
func (c *conn) fail(err error) {
	if err == nil {
		err = ErrClosed
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	streams := c.streams
	c.streams = nil
	c.mu.Unlock()

	close(c.stop)
	c.w.close(err)
	if c.role != nil {
		c.role.lost(err)
	}
	for _, st := range streams {
		st.fail(err)
	}
	if t, ok := c.nc.(interface{ NetConn() net.Conn }); ok {
		_ = t.NetConn().Close()
	}
	_ = c.nc.Close()
}

// remove takes a stream off the connection: what still arrives for it is dropped.
func (c *conn) remove(id uint64) {
	c.mu.Lock()
	delete(c.streams, id)
	c.w.crowd.Store(int32(len(c.streams)))
	c.mu.Unlock()
}

func (c *conn) stream(id uint64) *stream {
	c.mu.Lock()
	st := c.streams[id]
	c.mu.Unlock()
	return st
}

func (c *conn) reset(id uint64, code resetCode, msg string, mode flushMode) {
	_ = c.w.frame(frameReset, 0, id, append([]byte{byte(code)}, msg...), mode)
}

func (c *conn) sendWindow(id uint64, n int, f frameFlags) error {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return c.w.frame(frameWindow, f, id, b[:], flushInline)
}

// readLoop reads frames until the connection ends.
func (c *conn) readLoop() error {
	for {
		c.reading.Lock()
		err := c.readFrames()
		c.reading.Unlock()
		if !errors.Is(err, quickio.ErrAgain) {
			return err
		}
		if err := c.polled.Wait(); err != nil {
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
	}
}

// readFrames reads what is at hand, or until the connection ends. A stream is woken when all of that was read, or its answer is
// complete: one wake-up instead of one per frame. Called with reading held.
func (c *conn) readFrames() error {
	for {
		if err := c.readFrame(); err != nil {
			c.wakeLazy()
			return err
		}
		if c.br.Buffered() < frameHeaderLen {
			c.wakeLazy() // the next one may have to be waited for
		}
	}
}

func (c *conn) wakeLazy() {
	for i, st := range c.lazy {
		signal(st.readable)
		c.lazy[i] = nil
	}
	c.lazy = c.lazy[:0]
}

// readFrame hands one frame on. What is there of one that is not whole stays for the next call. Frames that fit the read buffer are not
// copied.
func (c *conn) readFrame() error {
	if c.large.payload != nil {
		return c.readLarge()
	}
	b, err := c.br.Peek(frameHeaderLen)
	if err != nil {
		return lost(err)
	}
	h, err := parseFrameHeader(b)
	if err != nil {
		return err
	}
	c.heard.Store(true)
	if c.br.Buffered() < frameHeaderLen+h.length {
		c.wakeLazy()
	}
	if h.length > maxPlain {
		_, _ = c.br.Discard(frameHeaderLen)
		c.large = large{h: h, payload: make([]byte, h.length)}
		return c.readLarge()
	}
	b, err = c.br.Peek(frameHeaderLen + h.length)
	if err != nil {
		return lost(err)
	}
	if err := c.dispatch(h, b[frameHeaderLen:]); err != nil {
		return err
	}
	_, _ = c.br.Discard(len(b))
	return nil
}

func (c *conn) readLarge() error {
	l := &c.large
	for l.n < len(l.payload) {
		n, err := c.br.Read(l.payload[l.n:])
		l.n += n
		if err != nil {
			return lost(err)
		}
	}
	h, payload := l.h, l.payload
	*l = large{}
	return c.dispatch(h, payload)
}

// lost is the end of the connection, unless it is only that there is nothing more yet.
func lost(err error) error {
	if errors.Is(err, quickio.ErrAgain) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrConnectionLost, err)
}

func (c *conn) dispatch(h frameHeader, payload []byte) error {
	switch h.typ {
	case frameRequest:
		return c.role.request(h, payload)
	case frameEcho:
		return c.echo(h, string(payload))
	case frameState:
		return c.role.state(string(payload))
	case frameGoaway:
		return c.role.goaway(string(payload))
	case frameHello:
		return fmt.Errorf("%w: second hello", errProtocol)
	}
	if h.stream == 0 {
		return nil // of a later version
	}
	st := c.stream(h.stream)
	if st == nil {
		return nil // ended here already
	}
	return c.toStream(st, h, payload)
}

func (c *conn) toStream(st *stream, h frameHeader, payload []byte) error {
	var err error
	switch h.typ {
	case frameData:
		err = st.receiveData(payload, h.flags)
	case frameResponse, frameInfo:
		f := h.flags
		if h.typ == frameInfo {
			f &^= flagEnd
		}
		err = st.receiveHead(head{typ: h.typ, flags: f, payload: string(payload)})
	case frameTrailers:
		err = st.receiveTrailers(string(payload))
		h.flags |= flagEnd
	case frameWindow:
		if len(payload) != 4 {
			return fmt.Errorf("%w: window", errProtocol)
		}
		return st.receiveWindow(uint64(binary.BigEndian.Uint32(payload)), h.flags)
	case frameStop:
		st.receiveStop()
		return nil
	case frameReset:
		if len(payload) < 1 {
			return fmt.Errorf("%w: reset", errProtocol)
		}
		st.fail(&resetError{code: resetCode(payload[0]), msg: string(payload[1:])})
		return nil
	default:
		return nil // of a later version
	}
	if err != nil {
		return err
	}
	if h.flags&flagEnd != 0 {
		signal(st.readable)
	} else {
		c.lazy = append(c.lazy, st)
	}
	return nil
}

// echo: the payload is the sender's wall clock (8 B), for an answer that of the question too (8 B), then
// the node info.
func (c *conn) echo(h frameHeader, payload string) error {
	now := time.Now()
	switch h.flags & (flagSync | flagAck) {
	case flagSync:
		return ignoreClosed(c.w.frame(frameEcho, flagSync|flagAck, 0, nil, flushAsync))
	case flagSync | flagAck:
		signal(c.synced)
		return nil
	}
	if h.flags&flagAck == 0 {
		if len(payload) < 8 {
			return fmt.Errorf("%w: echo", errProtocol)
		}
		if info := payload[8:]; info != c.said {
			c.said = info
			c.role.said(info)
		}
		b := binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))
		b = append(b, payload[:8]...)
		return ignoreClosed(c.w.frame(frameEcho, flagAck, 0, append(b, c.info()...), flushAsync))
	}
	if len(payload) < 16 {
		return fmt.Errorf("%w: echo", errProtocol)
	}
	theirs := int64(binary.BigEndian.Uint64([]byte(payload[:8])))
	asked := int64(binary.BigEndian.Uint64([]byte(payload[8:16])))
	sent := c.asked.Load()
	if sent == nil || sent.UnixNano() != asked {
		return nil // late: another one is under way
	}
	rtt := now.Sub(*sent)
	// The skew is shown to operators; nothing is decided by it (P4).
	skew := time.Duration(theirs - asked - int64(rtt)/2)
	c.role.echoed(payload[16:], rtt, skew)
	return nil
}

// sync returns when the peer has read all that was sent before, or the connection or ctx has ended.
func (c *conn) sync(ctx context.Context) {
	select { // an answer to an earlier call that was given up
	case <-c.synced:
	default:
	}
	_ = c.w.frame(frameEcho, flagSync, 0, nil, flushAsync)
	select {
	case <-c.synced:
	case <-c.stop:
	case <-ctx.Done():
	}
}

// ignoreClosed: a reader that cannot answer because the connection is being closed learns that from its
// own next read.
func ignoreClosed(error) error { return nil }

// ask sends the question for an echo, and with it what this node says of itself.
func (c *conn) ask(now time.Time) {
	b := binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))
	_ = c.w.frame(frameEcho, 0, 0, append(b, c.info()...), flushAsync)
}

// watch asks for an echo at once and at every interval, and gives the connection up when the peer is
// silent. What has changed is said at once, in a question whose answer is not used.
func (c *conn) watch() {
	t := time.NewTicker(echoInterval)
	defer t.Stop()
	silent := 0
	for {
		now := time.Now()
		c.asked.Store(&now)
		c.ask(now)
		for due := false; !due; {
			select {
			case <-t.C:
				due = true
			case <-c.news:
				c.ask(time.Now())
			case <-c.stop:
				return
			}
		}
		if c.heard.Swap(false) {
			silent = 0
		} else {
			silent++
		}
		if silent >= silentEchoes {
			c.fail(fmt.Errorf("%w: silent for %v", ErrConnectionLost, silentEchoes*echoInterval))
			return
		}
	}
}
