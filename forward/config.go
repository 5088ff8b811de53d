package forward

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// Mode says what a standby does with a request.
type Mode int

const (
	// ModeForward passes it on to the active node.
	ModeForward Mode = iota
	// ModeRedirect answers 307 with the active node's address.
	ModeRedirect
)

// None is the limit 0, where that can be wished for: the zero value stands for the default.
const None = -1

// Config of a Router. The zero value of every limit means its default.
type Config struct {
	// Node is this node's name, as sent in X-Locum-Node and X-Locum-Forwarded-By. Required.
	Node string
	// NodeID is this node's identity, the first part of its slots. Required.
	NodeID string
	// APIAddr is where clients reach this node: the guard against redirect loops compares it.
	APIAddr string
	Mode    Mode

	// HoldTimeout is how long one request may wait for an active node. Default 40 s.
	HoldTimeout time.Duration
	// HoldMaxRequests is how many may wait; with None none may. Default 10 000.
	HoldMaxRequests int
	// HoldMaxBytes bounds what waiting requests and retry buffers keep in memory; with None nothing waits.
	// Default 64 MiB.
	HoldMaxBytes int64
	// RetryBuffer is how much of a request's body is kept so that it can be sent again; a longer one
	// streams and cannot be repeated, with None each does. Default 1 MiB.
	RetryBuffer int64
	// MaxBody is the longest request body, in bytes; a longer one is answered 413. 0: no limit.
	MaxBody int64
	// MaxStreams is how many requests of one standby are taken at a time. Default 16 384.
	MaxStreams int
	// WindowBudget bounds the bytes that one connection may have received and not yet passed on.
	// Default 64 MiB.
	WindowBudget int64

	// Repeatable reports whether a request carries its own protection against being executed twice
	// (P6): it gets a slot, and is repeated although it may have been delivered.
	Repeatable func(*http.Request) bool
	// RepeatMethods may be repeated although delivered, besides the safe methods.
	RepeatMethods []string
	// TrustForwarded reports whether the client may send X-Forwarded-* and Client-Cert. Default: none may.
	TrustForwarded func(*http.Request) bool
	// SetForwarded adds X-Forwarded-For, -Host and -Proto, and Client-Cert (RFC 9440), to every request, wherever it is run.
	SetForwarded bool

	// Hello is what this node tells the other side of a connection, at connect, every second, and after HelloChanged. It is
	// called by the connection's reader and must not wait.
	Hello func() []byte
	// OnHello is told what the other side said, the round trip, and by how much its wall clock is ahead;
	// the active node hears of its standbys, a standby of the active node. It must not wait either.
	OnHello func(peerID string, hello []byte, rtt, skew time.Duration)

	Logger   *slog.Logger
	Observer Observer
}

// Observer is told of events worth a metric. Each func may be nil, is called on the request's way and
// must not wait.
type Observer struct {
	Local      func(d time.Duration, status int)   // run here
	Forwarded  func(d time.Duration, status int)   // run by the active node
	Held       func(d time.Duration, served bool)  // a wait is over
	HeldNow    func(delta int)                     // requests waiting
	Redirected func()                              // answered 307
	Repeated   func()                              // sent again after it may have been delivered
	Unknown    func()                              // answered "processed": "unknown"
	Refused    func()                              // answered 503 for want of an active node or of room
	Connected  func(peerID string, connected bool) // a forwarding connection came up or ended
}

func (c *Config) setDefaults() {
	def(&c.HoldTimeout, 40*time.Second)
	limit(&c.HoldMaxRequests, 10_000)
	limit(&c.HoldMaxBytes, 64<<20)
	limit(&c.RetryBuffer, 1<<20)
	def(&c.MaxStreams, defaultStreams)
	def(&c.WindowBudget, defaultBudget)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Hello == nil {
		c.Hello = func() []byte { return nil }
	}
	if c.OnHello == nil {
		c.OnHello = func(string, []byte, time.Duration, time.Duration) {}
	}
	if c.Repeatable == nil {
		c.Repeatable = func(*http.Request) bool { return false }
	}
	if c.TrustForwarded == nil {
		c.TrustForwarded = func(*http.Request) bool { return false }
	}
	c.Observer.setDefaults()
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func limit[T int | int64](p *T, v T) {
	switch *p {
	case 0:
		*p = v
	case None:
		*p = 0
	}
}

func (o *Observer) setDefaults() {
	if o.Local == nil {
		o.Local = func(time.Duration, int) {}
	}
	if o.Forwarded == nil {
		o.Forwarded = func(time.Duration, int) {}
	}
	if o.Held == nil {
		o.Held = func(time.Duration, bool) {}
	}
	if o.HeldNow == nil {
		o.HeldNow = func(int) {}
	}
	if o.Connected == nil {
		o.Connected = func(string, bool) {}
	}
	for _, f := range []*func(){&o.Redirected, &o.Repeated, &o.Unknown, &o.Refused} {
		if *f == nil {
			*f = func() {}
		}
	}
}

func (c *Config) validate() error {
	var errs []error
	if c.Node == "" || c.NodeID == "" {
		errs = append(errs, errors.New("forward: Node and NodeID are required"))
	}
	if c.Mode != ModeForward && c.Mode != ModeRedirect {
		errs = append(errs, fmt.Errorf("forward: unknown mode %d", c.Mode))
	}
	if c.APIAddr != "" {
		if u, err := url.Parse(c.APIAddr); err != nil || u.Scheme == "" || u.Host == "" {
			errs = append(errs, fmt.Errorf("forward: APIAddr %q is not a URL with a scheme", c.APIAddr))
		}
	}
	if c.HoldTimeout < 0 || c.HoldMaxRequests < 0 || c.HoldMaxBytes < 0 || c.RetryBuffer < 0 || c.MaxBody < 0 {
		errs = append(errs, errors.New("forward: limits must not be negative"))
	}
	return errors.Join(errs...)
}
