package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Config says where the application is. URL is required; the zero value of everything else means its default.
type Config struct {
	// URL of the application: http://host:port, h2c://host:port (HTTP/2 without TLS), https://host:port (HTTP/1.1 or HTTP/2,
	// as it chooses), unix:///path (HTTP/1.1 on a socket) or tcp://host:port (bytes; no HTTP).
	URL string

	// Node is this node's name, for answers that no router writes: those that switch protocols.
	Node string

	// TLS is for https://. Default: the host's authorities, and the URL's host as the name.
	TLS *tls.Config

	// ProxyProtocol begins each connection of tcp:// with a PROXY protocol header, version 2, that names the client.
	ProxyProtocol bool

	// DialTimeout is how long a connection may take to come up. Default 5 s.
	DialTimeout time.Duration

	// MaxConns is how many connections there may be at a time; requests beyond them wait at the router. Default 16 384.
	MaxConns int

	// MaxIdle is how many connections are kept for the next requests. Default 256.
	MaxIdle int

	// IdleTimeout is how long they are kept. Default 30 s.
	IdleTimeout time.Duration

	// MaxHeaderBytes is the longest head of an answer. Default 256 KiB.
	MaxHeaderBytes int

	Logger   *slog.Logger // default: nowhere
	Observer Observer
}

// Observer is told of events worth a metric. Each func may be nil, is called on the request's way and must not wait.
type Observer struct {
	Dialed   func(err error)    // a connection came up, or did not
	Broken   func()             // the application broke off without an answer
	BadReply func(err error)    // what came was no answer
	Tunnels  func(change int64) // upgraded connections and byte streams: +1, -1
}

// Upstream is the way to one application. It is an http.Handler; Close gives up what it keeps.
type Upstream struct {
	cfg     Config
	log     *slog.Logger
	network string // tcp or unix
	address string
	scheme  string
	tls     *tls.Config // nil: in plain
	pool    pool
	h2      *http2
	serve   http.HandlerFunc

	negotiated atomic.Int32 // of https: 0 not known yet, 1 HTTP/1.1, 2 HTTP/2
}

// New checks the configuration, without I/O.
func New(cfg Config) (*Upstream, error) {
	def(&cfg.DialTimeout, 5*time.Second)
	def(&cfg.MaxConns, 16<<10)
	def(&cfg.MaxIdle, 256)
	def(&cfg.IdleTimeout, 30*time.Second)
	def(&cfg.MaxHeaderBytes, 256<<10)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Observer.setDefaults()
	if cfg.DialTimeout < 0 || cfg.MaxConns < 0 || cfg.MaxIdle < 0 || cfg.IdleTimeout < 0 || cfg.MaxHeaderBytes < 4<<10 {
		return nil, errors.New("upstream: limits must not be negative, and a head has at least 4 KiB")
	}
	u := &Upstream{cfg: cfg, log: cfg.Logger}
	if err := u.parse(); err != nil {
		return nil, err
	}
	if cfg.ProxyProtocol && u.scheme != "tcp" {
		return nil, fmt.Errorf("upstream: %q: the PROXY protocol is for tcp://; HTTP applications read X-Forwarded-For", cfg.URL)
	}
	u.pool = pool{u: u}
	switch u.scheme {
	case "tcp":
		u.serve = u.serveStream
	case "h2c":
		u.h2 = newHTTP2(u)
		u.serve = u.serveHTTP2
	case "https":
		u.h2 = newHTTP2(u)
		u.serve = u.serveNegotiated
	default:
		u.serve = u.serveHTTP1
	}
	return u, nil
}

func (u *Upstream) parse() error {
	bad := func(why string) error {
		return fmt.Errorf("upstream: %q %s: write http://host:port, h2c://host:port, https://host:port, unix:///path or tcp://host:port", u.cfg.URL, why)
	}
	target, err := url.Parse(u.cfg.URL)
	if err != nil {
		return bad("is not a URL")
	}
	u.scheme, u.network, u.address = target.Scheme, "tcp", target.Host
	switch target.Scheme {
	case "unix":
		u.network, u.address = "unix", target.Path
		if target.Host != "" || !strings.HasPrefix(target.Path, "/") {
			return bad("names no absolute path")
		}
		return nil
	case "http", "https", "h2c", "tcp":
	default:
		return bad("has no scheme that is known")
	}
	switch {
	case target.Hostname() == "":
		return bad("names no host")
	case target.Path != "" && target.Path != "/" || target.RawQuery != "" || target.User != nil || target.Fragment != "":
		return bad("has more than a host and a port: requests keep the path that the client sent")
	case target.Port() == "" && (target.Scheme == "tcp" || target.Scheme == "h2c"):
		return bad("has no port")
	case target.Port() == "":
		u.address = net.JoinHostPort(target.Hostname(), map[string]string{"http": "80", "https": "443"}[target.Scheme])
	}
	if target.Scheme == "https" {
		u.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if u.cfg.TLS != nil {
			u.tls = u.cfg.TLS.Clone()
		}
		if u.tls.ServerName == "" {
			u.tls.ServerName = target.Hostname()
		}
		u.tls.NextProtos = []string{"h2", "http/1.1"}
	}
	return nil
}

// Stream reports whether the application takes bytes and not HTTP.
func (u *Upstream) Stream() bool { return u.scheme == "tcp" }

// ServeHTTP passes one request on and its answer back.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect && !u.Stream() {
		fail(w, http.StatusMethodNotAllowed, "CONNECT is not passed on to an application", "no")
		return
	}
	u.serve(w, r)
}

// Close gives up the connections that wait for requests. Those in use end with their requests.
func (u *Upstream) Close() {
	u.pool.close()
	if u.h2 != nil {
		u.h2.close()
	}
}

// dial makes a connection, not yet with TLS. The error is one that Decline may follow: nothing was sent.
func (u *Upstream) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: u.cfg.DialTimeout}
	nc, err := d.DialContext(ctx, u.network, u.address)
	u.cfg.Observer.Dialed(err)
	if err != nil {
		return nil, fmt.Errorf("upstream: no connection to the application: %w", err)
	}
	return nc, nil
}

// serveNegotiated asks the application once which HTTP it speaks with TLS.
func (u *Upstream) serveNegotiated(w http.ResponseWriter, r *http.Request) {
	if u.negotiated.Load() == 0 {
		nc, err := u.dial(r.Context())
		if err != nil {
			u.unreachable(w, r, err)
			return
		}
		c, err := u.secure(r.Context(), nc)
		if err != nil {
			u.unreachable(w, r, err)
			return
		}
		proto := int32(1)
		if c.ConnectionState().NegotiatedProtocol == "h2" {
			proto = 2
		}
		_ = c.Close()
		u.negotiated.Store(proto)
	}
	if u.negotiated.Load() == 2 {
		u.serveHTTP2(w, r)
		return
	}
	u.serveHTTP1(w, r)
}

// secure makes the TLS handshake on a connection, and closes it if that fails.
func (u *Upstream) secure(ctx context.Context, nc net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.DialTimeout)
	defer cancel()
	c := tls.Client(nc, u.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("upstream: TLS with the application: %w", err)
	}
	return c, nil
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (o *Observer) setDefaults() {
	if o.Dialed == nil {
		o.Dialed = func(error) {}
	}
	if o.Broken == nil {
		o.Broken = func() {}
	}
	if o.BadReply == nil {
		o.BadReply = func(error) {}
	}
	if o.Tunnels == nil {
		o.Tunnels = func(int64) {}
	}
}
