package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// ErrPortClosed: the port's Run has ended.
var ErrPortClosed = errors.New("cluster port closed")

var (
	errRemoved   = errors.New("protocol removed from the cluster port")
	errHandshake = errors.New("TLS handshake took too long")
)

// Config says where a Port listens and how patient it is.
type Config struct {
	Address          string        // host:port to listen on; port 0 takes a free one and keeps it
	HandshakeTimeout time.Duration // for one handshake; default 5s
	MaxHandshakes    int           // unfinished handshakes at a time, all hosts together; default 256
	Logger           *slog.Logger  // default: none
	Observer         Observer
}

// Observer is told what happens on the port. Every function may be nil; none may block.
type Observer struct {
	Accepted func(alpn string, handshake time.Duration) // a connection of a registered protocol begins
	Ended    func(alpn string)                          // and ends
	Refused  func(reason string)                        // "handshake", "timeout" or "crowded"
	Open     func(open bool)                            // the listener
}

// Protocol is what the port does with connections of one ALPN name.
type Protocol struct {
	ALPN string
	// TLS returns the server's configuration; it is called for every handshake. It must require and verify
	// a client certificate.
	TLS func() *tls.Config
	// Serve owns a connection whose handshake is done, in a goroutine of its own, until it returns; then the
	// connection is closed. It must return soon after its context ends, which the removal of the protocol
	// brings about; the connection is cut at the same time.
	Serve func(ctx context.Context, conn *tls.Conn)
}

// Port is the cluster port. Its listener is open while at least one protocol is registered.
type Port struct {
	cfg Config

	lifecycle sync.Mutex // one opening or closing of the listener at a time; taken before mu
	listening *listening // guarded by lifecycle

	mu        sync.Mutex
	protocols []*registration
	addr      net.Addr
	closed    bool

	half *halfOpen
	wg   sync.WaitGroup // every goroutine of the port
}

// listening is one opening of the port.
type listening struct {
	ln     net.Listener
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the accept loop has ended
}

// NewPort checks the configuration. Nothing is opened until the first Handle.
func NewPort(cfg Config) (*Port, error) {
	if _, _, err := net.SplitHostPort(cfg.Address); err != nil {
		return nil, fmt.Errorf("cluster address %q: %w", cfg.Address, err)
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = 5 * time.Second
	}
	if cfg.MaxHandshakes <= 0 {
		cfg.MaxHandshakes = 256
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Port{cfg: cfg, half: newHalfOpen(cfg.MaxHandshakes)}, nil
}

// Addr returns the address that the port listens on, or last listened on; nil before the first time.
func (p *Port) Addr() net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// Handle registers a protocol and opens the listener if it is the first one. It may be called before Run. The
// function that it returns removes the protocol again: it cuts the protocol's connections, waits until every
// Serve has returned, and closes the listener if no protocol is left. It must not be called from within Serve.
// Calling it again does nothing.
func (p *Port) Handle(proto Protocol) (remove func(), err error) {
	if proto.ALPN == "" || proto.TLS == nil || proto.Serve == nil {
		return nil, errors.New("cluster port: a protocol needs an ALPN name, TLS and Serve")
	}
	if err := requiresClientCert(proto.TLS()); err != nil {
		return nil, fmt.Errorf("cluster port: %s: %w", proto.ALPN, err)
	}
	p.lifecycle.Lock()
	defer p.lifecycle.Unlock()

	r := newRegistration(proto)
	p.mu.Lock()
	switch {
	case p.closed:
		err = ErrPortClosed
	case p.find(proto.ALPN) != nil:
		err = fmt.Errorf("cluster port: %s is registered already", proto.ALPN)
	default:
		p.protocols = append(p.protocols, r)
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := p.open(); err != nil {
		p.forget(r)
		return nil, err
	}
	return func() { p.remove(r) }, nil
}

// requiresClientCert holds P9: no protocol is registered that lets anyone in without a key.
func requiresClientCert(cfg *tls.Config) error {
	switch {
	case cfg == nil:
		return errors.New("no TLS configuration")
	case cfg.ClientAuth != tls.RequireAndVerifyClientCert || cfg.ClientCAs == nil:
		return errors.New("TLS configuration does not require and verify a client certificate")
	}
	return nil
}

// Run waits until ctx ends, then removes all protocols and returns when every goroutine of the port has
// ended. After that Handle returns [ErrPortClosed].
func (p *Port) Run(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock()
	p.closed = true
	left := slices.Clone(p.protocols)
	p.mu.Unlock()
	for _, r := range left {
		p.remove(r)
	}
	p.wg.Wait()
	return nil
}

func (p *Port) remove(r *registration) {
	p.forget(r)
	r.end(errRemoved) // without lifecycle: a slow Serve must not delay another protocol
	p.lifecycle.Lock()
	defer p.lifecycle.Unlock()
	p.mu.Lock()
	last := len(p.protocols) == 0
	p.mu.Unlock()
	if last {
		p.close()
	}
}

func (p *Port) forget(r *registration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.protocols = slices.DeleteFunc(p.protocols, func(o *registration) bool { return o == r })
}

// open starts the listener unless it is open. The caller holds lifecycle.
func (p *Port) open() error {
	if p.listening != nil {
		return nil
	}
	address := p.cfg.Address
	if addr := p.Addr(); addr != nil {
		address = addr.String() // a port that was chosen once is kept: it has been told to others
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("opening the cluster port: %w", err)
	}
	p.mu.Lock()
	p.addr = ln.Addr()
	p.mu.Unlock()
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &listening{ln: ln, cancel: cancel, done: make(chan struct{})}
	p.listening = l
	p.wg.Go(func() {
		defer close(l.done)
		p.accept(ctx, ln)
	})
	p.cfg.Logger.Info("cluster port open", "address", ln.Addr().String())
	if p.cfg.Observer.Open != nil {
		p.cfg.Observer.Open(true)
	}
	return nil
}

// close ends the listener and the handshakes under way. The caller holds lifecycle.
func (p *Port) close() {
	l := p.listening
	if l == nil {
		return
	}
	p.listening = nil
	l.cancel(errRemoved)
	_ = l.ln.Close() // nothing is left to do about a listener that does not close
	<-l.done
	p.cfg.Logger.Info("cluster port closed", "address", l.ln.Addr().String())
	if p.cfg.Observer.Open != nil {
		p.cfg.Observer.Open(false)
	}
}

// find returns the registration of an ALPN name. The caller holds mu.
func (p *Port) find(alpn string) *registration {
	for _, r := range p.protocols {
		if r.proto.ALPN == alpn {
			return r
		}
	}
	return nil
}

// accept hands every connection to a goroutine of its own before a byte of it is read (P9).
func (p *Port) accept(ctx context.Context, ln net.Listener) {
	const least, most = 5 * time.Millisecond, time.Second
	pause := least
	for {
		conn, err := ln.Accept()
		if err == nil {
			pause = least
			p.wg.Go(func() { p.admit(ctx, conn) })
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of file descriptors, most likely: it passes.
		p.cfg.Logger.Warn("cluster port cannot accept", "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, most)
	}
}
