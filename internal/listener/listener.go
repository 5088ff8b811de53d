package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// bodyPeriod is how long a client is waited for before its body's progress is judged, each time anew.
	bodyPeriod = 10 * time.Second

	// bodyLinger is how long the rest of a body that nobody wanted may take to come.
	bodyLinger = 5 * time.Second

	// writeStall is how long a client may take nothing of its answer.
	writeStall = time.Minute
)

// Config is one address and how it is served.
type Config struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the path of the socket
	Socket  Socket // of "unix"

	TLS *TLS // nil: in plain

	// Forwarders may say for whom they pass on a request: their X-Forwarded-* headers are believed.
	Forwarders Sources

	// Proxies must begin every connection with the PROXY protocol's header. nil: nobody does.
	Proxies *Sources

	ReadHeaderTimeout time.Duration // for TLS handshake, PROXY header and a request's head, each. Required
	IdleTimeout       time.Duration // between two requests of a connection. Required
	ReadTimeout       time.Duration // for all of a request's body; 0: none
	MinBodyRate       int64         // bytes per second, of a body that is waited for; 0: none
	Streams           bool          // a body of unknown length may pause for as long as it likes: it may be one side of a conversation
	MaxHeaderBytes    int           // of a request's head. Required

	Handler http.Handler
	Logger  *slog.Logger // default: nowhere
}

// Listener serves one address. New checks, Open opens, Serve runs until Shutdown.
type Listener struct {
	cfg    Config
	log    *slog.Logger
	server *http.Server
	ln     net.Listener
	file   *socketFile
	tls    atomic.Pointer[tls.Config]

	passed  chan accepted // to net/http
	ended   chan struct{} // closed when nothing is passed any more
	end     sync.Once
	closing atomic.Bool

	workers workers // of HTTP/2's requests

	fronts  sync.WaitGroup
	frontMu sync.Mutex
	open    map[*front]struct{}

	bodyPeriod, bodyLinger, writeStall time.Duration
}

// New checks what can be checked without I/O.
func New(cfg Config) (*Listener, error) {
	switch {
	case cfg.Network != "tcp" && cfg.Network != "unix":
		return nil, fmt.Errorf("listener: network %q", cfg.Network)
	case cfg.Handler == nil:
		return nil, errors.New("listener: no handler")
	case cfg.ReadHeaderTimeout <= 0 || cfg.IdleTimeout <= 0 || cfg.MaxHeaderBytes <= 0:
		return nil, errors.New("listener: the head's limits and the idle time-out must be positive")
	case cfg.TLS != nil && cfg.TLS.MinVersion < tls.VersionTLS12:
		return nil, errors.New("listener: TLS below 1.2")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Listener{cfg: cfg, log: cfg.Logger, bodyPeriod: bodyPeriod, bodyLinger: bodyLinger, writeStall: writeStall}
	l.workers.handler = http.HandlerFunc(l.serve)
	l.passed, l.ended, l.open = make(chan accepted), make(chan struct{}), map[*front]struct{}{}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(cfg.TLS == nil)
	l.server = &http.Server{
		Handler: http.HandlerFunc(l.dispatch), Protocols: protocols, ConnContext: withConn,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout, IdleTimeout: cfg.IdleTimeout, MaxHeaderBytes: cfg.MaxHeaderBytes,
		ErrorLog: slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
	}
	return l, nil
}

// Open reads the certificates and opens the port or makes the socket.
func (l *Listener) Open() error {
	use, err := l.Load()
	if err != nil {
		return err
	}
	use()
	if l.cfg.Network == "unix" {
		l.ln, l.file, err = listenUnix(l.cfg.Address, l.cfg.Socket)
	} else {
		l.ln, err = net.Listen(l.cfg.Network, l.cfg.Address)
	}
	if err != nil {
		return fmt.Errorf("listener %s: %w", l.cfg.Address, err)
	}
	return nil
}

// Addr is what is listened on, after Open.
func (l *Listener) Addr() net.Addr {
	if l.file != nil {
		return &net.UnixAddr{Name: l.file.path, Net: "unix"} // it was made under another name
	}
	return l.ln.Addr()
}

// Serve runs until Shutdown, and then returns nil at once.
func (l *Listener) Serve() error {
	l.fronts.Go(l.accept)
	err := l.server.Serve(accepting{l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown takes no more connections, lets requests in flight end until ctx does, then cuts the rest and says so by an
// error. A Unix socket's file is gone afterwards. It may be called without Open and Serve.
func (l *Listener) Shutdown(ctx context.Context) error {
	l.closing.Store(true)
	l.closeFronts(false)
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, l.server.Close())
	}
	if l.ln != nil {
		_ = l.ln.Close() // again, unless Serve was never called
	}
	l.end.Do(func() { close(l.ended) })
	err = errors.Join(err, l.awaitFronts(ctx))
	l.workers.close()
	return errors.Join(err, l.file.remove())
}

// awaitFronts returns when short requests are done too. When ctx ends first, their connections are cut, and they are not waited for.
func (l *Listener) awaitFronts(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with them
		l.fronts.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	if l.closeFronts(true) > 0 {
		return context.Cause(ctx)
	}
	return nil
}

// dispatch is what net/http calls.
func (l *Listener) dispatch(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 {
		l.serve(w, r)
		return
	}
	if c := connOf(r); c != nil {
		c.gather()
	}
	l.workers.ServeHTTP(w, r)
}

// serve settles who the client is, and watches its body.
func (l *Listener) serve(w http.ResponseWriter, r *http.Request) {
	if Authorized(r) {
		l.cfg.Forwarders.settleClient(r)
	}
	if _, short := r.Body.(*shortBody); !short && r.Body != nil && r.Body != http.NoBody && !(l.cfg.Streams && r.ContentLength < 0) && (l.cfg.MinBodyRate > 0 || l.cfg.ReadTimeout > 0) {
		defer l.watch(w, r)()
	}
	l.cfg.Handler.ServeHTTP(w, r)
}
