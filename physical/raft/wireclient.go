package raft

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

func appendUvarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

// wireConn is a connection on which this node asks and the peer answers, one request at a time.
type wireConn struct {
	net.Conn
	r    *bufio.Reader
	buf  []byte // of requests
	in   []byte // of answers
	used time.Time
}

const (
	keepConn    = 60 * time.Second  // an unused connection is kept for so long by who dialled
	dropConn    = 150 * time.Second // and by who was dialled
	keepConns   = 3                 // per peer: a heartbeat, entries, a vote
	keepMessage = 1 << 20           // bytes of a buffer that is kept for the next message
)

// call sends a request to a peer and reads the answer. A kept connection that turns out to be dead is
// replaced once: every message of raft may be sent twice.
func (t *transport) call(id string, limit time.Duration, request func([]byte) []byte, content io.Reader, answer func([]byte) error) error {
	deadline := time.Now().Add(limit)
	for {
		conn, kept, err := t.conn(id, deadline)
		if err != nil {
			return err
		}
		reached, err := conn.exchange(deadline, t.timing.rpc, request, content, answer)
		if err == nil {
			t.keep(id, conn)
			return nil
		}
		var refusal *refusalError
		if errors.As(err, &refusal) {
			t.keep(id, conn)
			return err
		}
		t.drop(conn.Conn)
		if !kept || reached || content != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// refusalError is the peer's own error.
type refusalError struct{ msg string }

func (e *refusalError) Error() string { return e.msg }

// exchange sends and receives. reached reports whether some of an answer had arrived.
func (c *wireConn) exchange(deadline time.Time, slice time.Duration, request func([]byte) []byte, content io.Reader, answer func([]byte) error) (reached bool, err error) {
	if err := c.SetDeadline(deadline); err != nil {
		return false, err
	}
	c.buf = request(c.buf)
	if _, err := c.Write(c.buf); err != nil {
		return false, err
	}
	if cap(c.buf) > keepMessage {
		c.buf = nil
	}
	if content != nil {
		if _, err := io.CopyBuffer(&slicedWriter{conn: c.Conn, slice: slice, deadline: deadline}, content, make([]byte, 256<<10)); err != nil {
			return false, err
		}
		if err := c.SetDeadline(deadline); err != nil {
			return false, err
		}
	}
	if _, err := c.r.Peek(1); err != nil {
		return false, err
	}
	if c.in, err = readFrame(c.r, c.in); err != nil {
		return true, err
	}
	if c.in[0] != 0 {
		return true, &refusalError{msg: string(c.in[1:])}
	}
	return true, answer(c.in[1:])
}

// slicedWriter gives each write a time of its own: a snapshot may take long, but must not stand still.
type slicedWriter struct {
	conn     net.Conn
	slice    time.Duration
	deadline time.Time
}

func (w *slicedWriter) Write(b []byte) (int, error) {
	at := time.Now().Add(w.slice)
	if w.deadline.Before(at) {
		at = w.deadline
	}
	if err := w.conn.SetWriteDeadline(at); err != nil {
		return 0, err
	}
	return w.conn.Write(b)
}

// conn returns a kept connection to a peer, or a new one.
func (t *transport) conn(id string, deadline time.Time) (conn *wireConn, kept bool, err error) {
	if conn := t.keptConn(id); conn != nil {
		return conn, true, nil
	}
	addr, err := t.peers.addr(id)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithDeadlineCause(t.stop, minTime(deadline, time.Now().Add(t.timing.rpc)), errors.New("dial timed out"))
	defer cancel()
	raw, err := t.layer.Dial(ctx, id, addr)
	if err != nil {
		return nil, false, fmt.Errorf("dial node %s at %s: %w", id, addr, err)
	}
	if who, ok := raw.(interface{ PeerID() string }); ok && who.PeerID() != id {
		return nil, false, errors.Join(fmt.Errorf("node %s answers at the address of %s", who.PeerID(), id), raw.Close())
	}
	if !t.track(raw) {
		return nil, false, errors.Join(errStopping, raw.Close())
	}
	err = raw.SetWriteDeadline(deadline)
	if err == nil {
		_, err = raw.Write(appendHello(nil, t.self, id))
	}
	if err != nil {
		t.drop(raw)
		return nil, false, err
	}
	return &wireConn{Conn: raw, r: bufio.NewReaderSize(raw, 4<<10)}, false, nil
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (t *transport) keptConn(id string) *wireConn {
	t.poolMu.Lock()
	defer t.poolMu.Unlock()
	for n := len(t.idle[id]); n > 0; n = len(t.idle[id]) {
		conn := t.idle[id][n-1]
		t.idle[id] = t.idle[id][:n-1]
		if time.Since(conn.used) < keepConn {
			return conn
		}
		delete(t.open, conn.Conn)
		_ = conn.Close()
	}
	return nil
}

// keep puts a connection back for the next call.
func (t *transport) keep(id string, conn *wireConn) {
	t.poolMu.Lock()
	defer t.poolMu.Unlock()
	if t.stop.Err() != nil || len(t.idle[id]) >= keepConns {
		delete(t.open, conn.Conn)
		_ = conn.Close()
		return
	}
	conn.used = time.Now()
	t.idle[id] = append(t.idle[id], conn)
}

// track has a connection closed when the transport is; false if it is already.
func (t *transport) track(conn net.Conn) bool {
	t.poolMu.Lock()
	defer t.poolMu.Unlock()
	if t.stop.Err() != nil {
		return false
	}
	t.open[conn] = struct{}{}
	return true
}

func (t *transport) drop(conn net.Conn) {
	t.poolMu.Lock()
	delete(t.open, conn)
	t.poolMu.Unlock()
	_ = conn.Close()
}
