package zookeeper

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/locum-ha/locum/physical"
)

// credentials let a connection attach to a session.
type credentials struct {
	id       int64
	password []byte
}

// errExpired: there is no such session any more.
var errExpired = errors.New("ZooKeeper: the session has run out")

// errSent marks a failure after which the request may have been carried out.
var errSent = errors.New("sent, and no answer came")

// maxReply bounds what a server may answer with: the names of a folder with some millions of entries.
const maxReply = 256 << 20

// conn is one connection, attached to a session. Requests are answered in the order in which they were sent.
type conn struct {
	raw     net.Conn
	session credentials
	timeout time.Duration // of the session, as the server gave it

	queue chan *request // to the writer
	dead  chan struct{} // closed when the connection is of no use any more
	all   sync.WaitGroup

	mu      sync.Mutex
	err     error         // why it is dead
	waiting []*request    // sent and not answered, in order
	changed chan struct{} // closed and made anew when a watch tells something
	zxid    int64         // the last change of the servers' that was seen
}

// request is one packet and what becomes of it.
type request struct {
	packet []byte
	done   chan reply // of capacity 1
}

type reply struct {
	body in
	err  error
}

// A server that is there and does not take the connection may have seen less than this client, have no leader for the
// moment, or only now come to an earlier attachment to the session that was given up. So others are tried, for at most
// attachTime, and an attempt follows on the other after attachPause.
const (
	attachTime  = 10 * time.Second
	attachPause = 40 * time.Millisecond
)

// attach connects to a server and to a session: a new one with the time-out if its id is 0. seen is the last change that
// this client knows of; a server that knows less refuses. It returns errExpired if there is no such session.
func (d *dialer) attach(ctx context.Context, session credentials, timeout time.Duration, seen int64) (*conn, error) {
	var refused error // the last time
	for start := time.Now(); ; {
		raw, err := d.connect(ctx)
		if err != nil && refused != nil && outOfTime(ctx, err) {
			return nil, refused // it says more
		}
		if err != nil {
			return nil, err
		}
		c, err := d.greet(ctx, raw, session, timeout, seen)
		if err == nil {
			return c, nil
		}
		_ = raw.Close()
		if refused == nil || !outOfTime(ctx, err) {
			refused = err
		}
		if errors.Is(err, errExpired) {
			return nil, err
		}
		if ctx.Err() != nil || time.Since(start) > attachTime {
			return nil, refused
		}
		pause := time.NewTimer(attachPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, refused
		}
	}
}

// outOfTime reports whether an attempt ended for want of time: dialling can notice that a little before the context does.
func outOfTime(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// greet attaches a connection to a session. A server that takes connections and says nothing has [dialTime] to answer, as one
// that takes none.
func (d *dialer) greet(ctx context.Context, raw net.Conn, session credentials, timeout time.Duration, seen int64) (*conn, error) {
	limited, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	stop := context.AfterFunc(limited, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	c, err := handshake(raw, session, timeout, seen, d.digest)
	if d.tls == nil && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, errStrange)) {
		err = fmt.Errorf("%w; does it want TLS (tls = true)?", err)
	}
	if !stop() && err == nil {
		c.close()
		err = context.Cause(limited)
	}
	return c, err
}

func handshake(raw net.Conn, session credentials, timeout time.Duration, seen int64, digest physical.Secret) (*conn, error) {
	password := session.password
	if session.id == 0 {
		password = make([]byte, 16)
	}
	o := newPacket()
	o.int32(0)
	o.int64(seen)
	o.int32(int32(timeout / time.Millisecond))
	o.int64(session.id)
	o.buffer(password)
	o.bool(false)
	if _, err := raw.Write(o.finish()); err != nil {
		return nil, err
	}
	body, err := readPacket(raw)
	if err != nil {
		return nil, fmt.Errorf("the server does not take the connection: %w", err)
	}
	body.int32()
	granted := time.Duration(body.int32()) * time.Millisecond
	id, password := body.int64(), body.buffer()
	if body.err != nil {
		return nil, body.err
	}
	if granted <= 0 || id == 0 {
		return nil, errExpired
	}
	c := &conn{
		raw: raw, session: credentials{id, append([]byte(nil), password...)}, timeout: granted,
		queue: make(chan *request, 128), dead: make(chan struct{}), changed: make(chan struct{}), zxid: seen,
	}
	if digest != "" {
		// Its answer is known by its number; a refusal ends the connection.
		o := newPacket()
		o.int32(xidAuth)
		o.int32(opAuth)
		o.int32(0)
		o.string("digest")
		o.string(digest.Reveal())
		if _, err := raw.Write(o.finish()); err != nil {
			return nil, err
		}
	}
	c.all.Go(c.write)
	c.all.Go(c.read)
	return c, nil
}

// errStrange: what a server says is not ZooKeeper's protocol.
var errStrange = errors.New("this does not look like a ZooKeeper server")

func readPacket(from io.Reader) (in, error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return in{}, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxReply {
		return in{}, fmt.Errorf("%w: a packet of %d bytes", errStrange, n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(from, body)
	return in{b: body}, err
}

// fail ends the connection: what waits for an answer gets none.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.dead)
	_ = c.raw.Close()
	for _, r := range c.waiting {
		r.done <- reply{err: fmt.Errorf("%w: %w", errSent, err)}
	}
	c.waiting = nil
}

func (c *conn) alive() bool {
	select {
	case <-c.dead:
		return false
	default:
		return true
	}
}

// close ends the connection, not the session, and waits for what it has started.
func (c *conn) close() {
	c.fail(net.ErrClosed)
	c.all.Wait()
}

// write sends what is queued, and a ping whenever nothing was sent for a third of the session's time-out.
func (c *conn) write() {
	buffered := bufio.NewWriterSize(c.raw, 64<<10)
	ping := time.NewTicker(c.timeout / 3)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-c.dead:
			return
		case r := <-c.queue:
			err = c.send(buffered, r)
		case <-ping.C:
			o := newPacket()
			o.int32(xidPing)
			o.int32(opPing)
			_, err = buffered.Write(o.finish())
		}
		for err == nil && len(c.queue) > 0 {
			err = c.send(buffered, <-c.queue)
		}
		if err == nil {
			err = buffered.Flush()
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// send puts the request among those that wait before its first byte can reach the server.
func (c *conn) send(to io.Writer, r *request) error {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		r.done <- reply{err: c.err}
		return c.err
	}
	c.waiting = append(c.waiting, r)
	c.mu.Unlock()
	_, err := to.Write(r.packet)
	return err
}

// read takes the answers. A server that is silent for two thirds of the session's time-out, although it is pinged, is
// given up.
func (c *conn) read() {
	buffered := bufio.NewReaderSize(c.raw, 64<<10)
	for {
		_ = c.raw.SetReadDeadline(time.Now().Add(c.timeout * 2 / 3))
		body, err := readPacket(buffered)
		if err == nil {
			err = c.take(body)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *conn) take(body in) error {
	xid, zxid, code := body.int32(), body.int64(), body.int32()
	if body.err != nil {
		return body.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.zxid = max(c.zxid, zxid)
	switch xid {
	case xidPing:
		return nil
	case xidNotification:
		close(c.changed)
		c.changed = make(chan struct{})
		return nil
	case xidAuth:
		if code != codeOK {
			return codeError(code)
		}
		return nil
	}
	if len(c.waiting) == 0 {
		return errors.New("ZooKeeper: an answer to nothing")
	}
	r := c.waiting[0]
	c.waiting = c.waiting[1:]
	if sent := int32(binary.BigEndian.Uint32(r.packet[4:])); sent != xid {
		r.done <- reply{err: errSent}
		return fmt.Errorf("ZooKeeper: an answer to request %d where one to %d is due", xid, sent)
	}
	if code != codeOK {
		r.done <- reply{err: codeError(code)}
		return nil
	}
	r.done <- reply{body: body}
	return nil
}

// events returns a channel that is closed at the next event of a watch.
func (c *conn) events() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// seen returns the last change of the servers' that this connection knows of.
func (c *conn) seen() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.zxid
}

// start queues a request; it returns when it was taken.
func (c *conn) start(ctx context.Context, op int32, body func(*out)) (*request, error) {
	o := newPacket()
	o.int32(1) // answers come in order, so all requests may have one number: above 0, it is not one of the special ones
	o.int32(op)
	if body != nil {
		body(o)
	}
	r := &request{packet: o.finish(), done: make(chan reply, 1)}
	select {
	case <-c.dead:
		return nil, c.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case c.queue <- r:
		return r, nil
	}
}

// wait returns the answer to a request.
func (c *conn) wait(ctx context.Context, r *request) (in, error) {
	select {
	case got := <-r.done:
		return got.body, got.err
	case <-ctx.Done():
		return in{}, fmt.Errorf("%w: %w", errSent, context.Cause(ctx))
	case <-c.dead:
	}
	select {
	case got := <-r.done:
		return got.body, got.err
	default: // it was never taken from the queue
		return in{}, fmt.Errorf("%w: %w", errSent, c.err)
	}
}

// call makes one request.
func (c *conn) call(ctx context.Context, op int32, body func(*out)) (in, error) {
	r, err := c.start(ctx, op, body)
	if err != nil {
		return in{}, err
	}
	return c.wait(ctx, r)
}

// multi carries out all steps that were encoded or none. It returns the version that each left its node in.
func (c *conn) multi(ctx context.Context, steps []byte) ([]int32, error) {
	answer, err := c.call(ctx, opMulti, func(o *out) { o.b = append(o.b, steps...) })
	if err != nil {
		return nil, err
	}
	return readMulti(&answer)
}

// dialer connects to the servers in turn, beginning with one chosen at random.
type dialer struct {
	servers []string
	tls     *tls.Config     // nil: without TLS
	digest  physical.Secret // "user:password", or ""
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	turn    atomic.Uint32
}

// dialTime is how long one server may take to be connected to before the next is tried.
const dialTime = 2 * time.Second

func (d *dialer) connect(ctx context.Context) (net.Conn, error) {
	var errs []error
	first := int(d.turn.Add(1) % uint32(len(d.servers)))
	for i := range d.servers {
		server := d.servers[(first+i)%len(d.servers)]
		raw, err := d.one(ctx, server)
		if err == nil {
			return raw, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (d *dialer) one(ctx context.Context, server string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := d.dial(ctx, "tcp", server)
	if err != nil || d.tls == nil {
		return raw, err
	}
	config := d.tls.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(server)
	}
	secure := tls.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%s: %w", server, err)
	}
	return secure, nil
}
