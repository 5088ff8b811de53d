package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

// admit makes the handshake of one connection and serves it.
func (p *Port) admit(ctx context.Context, raw net.Conn) {
	start := time.Now()
	slot := p.half.enter(raw)
	var chosen *registration
	conn := tls.Server(quickio.Poll(raw), &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			cfg, r, err := p.choose(hello)
			chosen = r
			return cfg, err
		},
	})
	deadline, cancel := context.WithTimeoutCause(ctx, p.cfg.HandshakeTimeout, errHandshake)
	err := conn.HandshakeContext(deadline)
	late := errors.Is(context.Cause(deadline), errHandshake)
	cancel()
	crowded := p.half.leave(slot)
	switch {
	case err != nil || chosen == nil:
		_ = raw.Close()
		p.refused(raw, reason(late, crowded), err)
		return
	case !chosen.add(conn):
		_ = raw.Close() // removed while the handshake ran
		return
	}
	defer chosen.done(conn)
	if p.cfg.Observer.Accepted != nil {
		p.cfg.Observer.Accepted(chosen.proto.ALPN, time.Since(start))
	}
	if p.cfg.Observer.Ended != nil {
		defer p.cfg.Observer.Ended(chosen.proto.ALPN)
	}
	chosen.proto.Serve(chosen.ctx, conn)
}

func reason(late, crowded bool) string {
	switch {
	case crowded:
		return "crowded"
	case late:
		return "timeout"
	}
	return "handshake"
}

// refused is told at debug level only: port scanners and load balancers' probes are everyday guests.
func (p *Port) refused(raw net.Conn, reason string, err error) {
	p.cfg.Logger.Debug("connection to the cluster port refused", "remote", raw.RemoteAddr().String(), "reason", reason, "error", err)
	if p.cfg.Observer.Refused != nil {
		p.cfg.Observer.Refused(reason)
	}
}

// choose picks the first protocol of the client's list that is registered. If there is none the answer to
// the client is the alert no_application_protocol (RFC 7301 §3.2), also where it offered nothing at all.
func (p *Port) choose(hello *tls.ClientHelloInfo) (*tls.Config, *registration, error) {
	p.mu.Lock()
	var r *registration
	for _, alpn := range hello.SupportedProtos {
		if r = p.find(alpn); r != nil {
			break
		}
	}
	var registered []string
	for _, o := range p.protocols {
		registered = append(registered, o.proto.ALPN)
	}
	p.mu.Unlock()
	switch {
	case r != nil:
	case len(hello.SupportedProtos) == 0 || len(registered) == 0:
		return nil, nil, errors.New("client offers no protocol")
	default:
		return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: registered}, nil, nil
	}
	cfg := r.proto.TLS()
	if err := requiresClientCert(cfg); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", r.proto.ALPN, err)
	}
	cfg = cfg.Clone()
	cfg.NextProtos = []string{r.proto.ALPN}
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	return cfg, r, nil
}

// halfOpen bounds the connections whose handshake is not done (P12). A newcomer beyond the bound closes the
// oldest one of the host that has the most: genuine handshakes take milliseconds and are seldom the oldest.
type halfOpen struct {
	max int

	mu    sync.Mutex
	slots []*halfSlot // oldest first
	count map[string]int
}

type halfSlot struct {
	conn    net.Conn
	host    string
	evicted bool
}

func newHalfOpen(limit int) *halfOpen { return &halfOpen{max: limit, count: map[string]int{}} }

func (h *halfOpen) enter(conn net.Conn) *halfSlot {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		host = conn.RemoteAddr().String()
	}
	slot := &halfSlot{conn: conn, host: host}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.slots) >= h.max {
		h.evict()
	}
	h.slots = append(h.slots, slot)
	h.count[host]++
	return slot
}

// evict closes one connection; its goroutine notices and leaves. The caller holds mu.
func (h *halfOpen) evict() {
	var victim *halfSlot
	for _, s := range h.slots {
		if victim == nil || h.count[s.host] > h.count[victim.host] {
			victim = s
		}
	}
	victim.evicted = true
	_ = victim.conn.Close()
	h.take(victim)
}

// leave gives the slot back and reports whether it had been taken away.
func (h *halfOpen) leave(slot *halfSlot) (evicted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slot.evicted {
		h.take(slot)
	}
	return slot.evicted
}

func (h *halfOpen) take(slot *halfSlot) {
	for i, s := range h.slots {
		if s == slot {
			h.slots = append(h.slots[:i], h.slots[i+1:]...)
			break
		}
	}
	if h.count[slot.host]--; h.count[slot.host] == 0 {
		delete(h.count, slot.host)
	}
}

// registration is one protocol while it is registered, with its connections.
type registration struct {
	proto  Protocol
	ctx    context.Context // ends with the registration
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	ended bool
	conns map[*tls.Conn]struct{}
	wg    sync.WaitGroup
}

func newRegistration(proto Protocol) *registration {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &registration{proto: proto, ctx: ctx, cancel: cancel, conns: map[*tls.Conn]struct{}{}}
}

func (r *registration) add(conn *tls.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false
	}
	r.conns[conn] = struct{}{}
	r.wg.Add(1)
	return true
}

func (r *registration) done(conn *tls.Conn) {
	_ = conn.NetConn().Close() // Serve has said its goodbyes, if it had any
	r.mu.Lock()
	delete(r.conns, conn)
	r.mu.Unlock()
	r.wg.Done()
}

// end cuts the connections and waits until all Serves have returned.
func (r *registration) end(cause error) {
	r.cancel(cause)
	r.mu.Lock()
	r.ended = true
	for conn := range r.conns {
		_ = conn.NetConn().Close() // not tls.Conn.Close: it waits for a peer that does not read
	}
	r.mu.Unlock()
	r.wg.Wait()
}
