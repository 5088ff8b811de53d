package resp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Server can be given. The zero Config listens on DefaultAddress.
type Config struct {
	// Address is the host:port to listen on. One that is not loopback needs a Password. Default DefaultAddress.
	Address string

	// Password is what AUTH must give, as the user "default"; "" if nobody need authenticate.
	Password Secret

	// TLS is how connections are secured; nil for none.
	TLS *tls.Config

	// MaxConns is how many clients there may be at a time; more are told so and closed. Default 10000.
	MaxConns int

	// MaxCommand is how many bytes a command's arguments may have together. Default 16 MiB.
	MaxCommand int

	// MaxArgs is how many arguments a command may have. Default 1 Mi.
	MaxArgs int

	// MaxQueued is how many bytes a transaction may gather, and how many may wait for a subscriber before it is closed.
	// Default 16 MiB.
	MaxQueued int

	// Databases is how many numbers SELECT takes, from 0 on. Default 16.
	Databases int

	// AuthTimeout is how long a client that has to authenticate may take for it: one that stays silent keeps no place. Default 10s.
	AuthTimeout time.Duration

	// WriteTimeout is how long a client may take for an answer. Default 1m.
	WriteTimeout time.Duration

	// CommandTimeout bounds how long a write waits for the cluster: so long at most, nine tenths of it at least. Default 10s.
	CommandTimeout time.Duration

	// Logger gets what goes wrong; default: nowhere.
	Logger *slog.Logger

	// Observer is told what happens.
	Observer Observer
}

// Observer is told what a Server did. Funcs may be nil, and must not block.
type Observer struct {
	// Connected: so many clients are connected now.
	Connected func(clients int)
	// Refused: a connection was closed for a reason, one of "maxclients", "protocol", "auth", "slow subscriber",
	// "messages were missed".
	Refused func(why string)
}

// DefaultAddress is where the server listens unless it is told otherwise.
const DefaultAddress = "127.0.0.1:8479"

// Secret is text that is not shown.
type Secret string

// String returns "***".
func (Secret) String() string { return "***" }

// GoString returns "***".
func (Secret) GoString() string { return "***" }

func (c Config) withDefaults() Config {
	or := func(into *int, n int) {
		if *into <= 0 {
			*into = n
		}
	}
	or(&c.MaxConns, 10000)
	or(&c.MaxCommand, 16<<20)
	or(&c.MaxArgs, 1<<20)
	or(&c.MaxQueued, 16<<20)
	or(&c.Databases, 16)
	if c.Address == "" {
		c.Address = DefaultAddress
	}
	if c.AuthTimeout <= 0 {
		c.AuthTimeout = 10 * time.Second
	}
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = time.Minute
	}
	if c.CommandTimeout <= 0 {
		c.CommandTimeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observer.Connected == nil {
		c.Observer.Connected = func(int) {}
	}
	if c.Observer.Refused == nil {
		c.Observer.Refused = func(string) {}
	}
	return c
}

// Server serves a Store to clients of Redis.
type Server struct {
	cfg      Config
	store    Store
	hub      hub
	lastID   atomic.Uint64
	commands atomic.Uint64 // that were carried out
	accepted atomic.Uint64 // connections

	mu      sync.Mutex
	conns   map[*conn]struct{}
	closing bool
}

// New checks the configuration. It makes no connection.
func New(store Store, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	host, _, err := net.SplitHostPort(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("RESP address %q is not host:port: write it such as %q", cfg.Address, DefaultAddress)
	}
	ip := net.ParseIP(host)
	if loopback := host == "localhost" || ip != nil && ip.IsLoopback(); !loopback && cfg.Password == "" {
		return nil, fmt.Errorf("RESP address %q can be reached from other hosts, and no password is set: set one, or listen on %q", cfg.Address, DefaultAddress)
	}
	s := &Server{cfg: cfg, store: store, conns: map[*conn]struct{}{}}
	s.hub.limit = cfg.MaxQueued
	return s, nil
}

// Run listens and serves until ctx ends, then closes every connection. It returns when all that it began has ended.
func (s *Server) Run(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return fmt.Errorf("RESP: %w", err)
	}
	return s.Serve(ctx, ln)
}

// Serve is Run on a listener, which it closes.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() {
		_ = ln.Close() // it ends Accept, which tells what is to be told
		s.closeAll()
	})
	defer stop()
	wg.Go(func() { s.hub.run(ctx, s.store, s.cfg.Logger) })
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = nc.Close()
			}
			s.closeAll()
			return nil
		case errors.Is(err, net.ErrClosed):
			cancel(err)
			return fmt.Errorf("RESP: %w", err)
		case err != nil: // out of file descriptors, most likely: others may end
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Logger.Warn("RESP: accept failed", "error", err, "again_in", pause)
			wait(ctx, pause)
			continue
		}
		pause = 0
		s.accepted.Add(1)
		if c := s.admit(nc); c != nil {
			wg.Go(func() {
				defer s.dismiss(c)
				c.serve(ctx)
			})
		}
	}
}

// admit makes a connection of what was accepted, or tells it that there are too many and returns nil.
func (s *Server) admit(nc net.Conn) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || len(s.conns) >= s.cfg.MaxConns {
		s.cfg.Observer.Refused("maxclients")
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(nc, "-ERR max number of clients reached\r\n") // the client may be gone
		_ = nc.Close()
		return nil
	}
	c := newConn(s, nc)
	s.conns[c] = struct{}{}
	s.cfg.Observer.Connected(len(s.conns))
	return c
}

func (s *Server) dismiss(c *conn) {
	s.hub.leave(c)
	_ = c.raw.Close() // a second time, mostly
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.cfg.Observer.Connected(len(s.conns))
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for c := range s.conns {
		_ = c.raw.Close() // each connection's own goroutine notices
	}
}

// clients lists the connections there are.
func (s *Server) clients() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
