package cache

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	hraft "github.com/hashicorp/raft"
)

// On a connection for status a node asks another how things are, and asks a leader to be let in.
const (
	askStatus byte = 1
	askJoin   byte = 2 // cluster, identity, host
)

// ask asks one host how things are, often while this node looks for others, else now and then.
func (s *shell) ask(ctx context.Context, i int, host string) {
	var conn *wireConn
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	lower, upper := s.n.cfg.ReconnectLower, s.n.cfg.ReconnectUpper
	for ctx.Err() == nil {
		wait := time.Duration(jitter(int64(s.pollInterval())))
		if m := s.n.member.Load(); m != nil && m.heardOpen() {
			wait *= 5
		}
		v := view{}
		err := s.status(ctx, &conn, host, &v)
		if err != nil {
			v = view{}
			wait = max(wait, lower+rand.N(upper-lower+1))
		}
		s.asked.Store(host, v)
		select {
		case s.views <- evView{host: i, view: v}:
		case <-ctx.Done():
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (s *shell) status(ctx context.Context, conn **wireConn, host string, v *view) error {
	err := s.exchange(ctx, conn, host, func(b []byte) []byte { return endFrame(beginFrame(b, askStatus)) }, func(body []byte) error {
		d := decoder{b: body}
		*v = view{
			at: nowMillis(), id: d.string(), list: d.uvarint(), bound: d.bool(), cluster: d.string(), founder: d.bool(), open: d.bool(),
			leader: d.string(), host: d.string(),
		}
		return d.end("status")
	})
	return err
}

func (s *shell) exchange(ctx context.Context, conn **wireConn, host string, request func([]byte) []byte, answer func([]byte) error) error {
	limit := max(2*s.n.cfg.ElectionTimeout, time.Second)
	if *conn == nil {
		dialing, cancel := context.WithTimeoutCause(ctx, limit, errTimeout)
		defer cancel()
		raw, err := s.dialer.dial(dialing, host, hello{purpose: forStatus, from: *s.id.Load(), host: s.n.cfg.Self})
		if err != nil {
			return err
		}
		*conn = &wireConn{Conn: raw, r: bufio.NewReader(raw)}
	}
	c := *conn
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	err := c.exchange(time.Now().Add(limit), request, nil, answer)
	var refusal *refusalError
	if err != nil && !errors.As(err, &refusal) {
		_ = c.Close()
		*conn = nil
	}
	return err
}

// join asks a leader to let this member in.
func (s *shell) join(m *member, host string) error {
	var conn *wireConn
	err := s.exchange(m.ctx, &conn, host, func(b []byte) []byte {
		b = appendBytes(appendBytes(beginFrame(b, askJoin), m.cluster), m.id)
		return endFrame(appendBytes(b, s.n.cfg.Self))
	}, func([]byte) error { return nil })
	if conn != nil {
		_ = conn.Close()
	}
	return err
}

// answer answers what is asked on a connection for status.
func (s *shell) answer(raw net.Conn) {
	defer func() { _ = raw.Close() }()
	r := bufio.NewReader(raw)
	var in, out []byte
	for {
		if err := raw.SetDeadline(time.Now().Add(dropConn)); err != nil {
			return
		}
		frame, err := readFrame(r, in)
		if err != nil || len(frame) > maxHello {
			return
		}
		in = frame
		out = beginFrame(out, 0)
		switch frame[0] {
		case askStatus:
			out = appendView(out, s.state.Load())
		case askJoin:
			if err := s.let(frame[1:]); err != nil {
				out = append(beginFrame(out, 1), err.Error()...)
			}
		default:
			out = append(beginFrame(out, 1), fmt.Sprintf("a request of kind %d is not known to this version", frame[0])...)
		}
		if _, err := raw.Write(endFrame(out)); err != nil {
			return
		}
	}
}

func appendView(b []byte, v *view) []byte {
	b = binary.AppendUvarint(appendBytes(b, v.id), v.list)
	b = appendBytes(appendBool(b, v.bound), v.cluster)
	b = appendBool(appendBool(b, v.founder), v.open)
	return appendBytes(appendBytes(b, v.leader), v.host)
}

// let lets a newcomer in, if this node leads.
func (s *shell) let(body []byte) error {
	d := decoder{b: body}
	cluster, id, host := d.string(), d.string(), d.string()
	if err := d.end("request to join"); err != nil {
		return err
	}
	m := s.n.member.Load()
	if m == nil || m.cluster != cluster {
		return errors.New("this node takes part in another cluster, or in none")
	}
	l := m.lead.Load()
	if l == nil {
		return errors.New("this node does not lead")
	}
	err := l.admit(id, host)
	if errors.Is(err, hraft.ErrEnqueueTimeout) {
		return errors.New("the leader is busy")
	}
	return err
}
