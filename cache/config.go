package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Options bound one cache. They are the same on all nodes: the leader's own are put into the log.
type Options struct {
	MaxEntries int64         // entries; the one not written for longest is evicted. Default: 1 000 000
	MaxBytes   int64         // bytes, keys and some 144 bytes per entry counted. Default: 256 MiB
	DefaultTTL time.Duration // of entries written without a TTL. Default: they do not expire
}

// Config is what a node needs to know.
type Config struct {
	// Hosts lists all nodes of the cache as host:port, this one included, the same list on every node. A node
	// that is started with another list changes the cluster. Empty: one node by itself, without a network.
	Hosts []string
	// Self is the entry of Hosts that is this node.
	Self string
	// Listen is the address to listen on. Default: all addresses, at the port of Self.
	Listen string
	// AuthToken is the secret that all nodes share. It is proven in both directions and never sent. Required
	// unless a Layer carries the connections; 16 characters at least are advised.
	AuthToken Secret
	// TLS says how connections are protected. Default: mutual TLS with certificates made from the token.
	TLS TLS
	// Layer carries the connections instead, where there is one that proves identities already. Then Listen,
	// AuthToken and TLS are not used.
	Layer Layer

	// Caches are the caches by name. Any other name may be used too, and has the options of Default.
	Caches  map[string]Options
	Default Options

	// ElectionTimeout is how long the leader may be silent before another is elected. Default: 500ms.
	ElectionTimeout time.Duration
	// QuorumLossTimeout is how long a node without a leader that has a quorum keeps its data and answers local
	// reads (P11). Default: four election timeouts, two seconds at least.
	QuorumLossTimeout time.Duration
	// OperationTimeout limits a call whose context has no nearer end. Default: 10s.
	OperationTimeout time.Duration
	// KeepaliveInterval is how often an idle connection is probed, KeepaliveTimeout how long an answer may
	// take. Defaults: 5s, 5s.
	KeepaliveInterval, KeepaliveTimeout time.Duration
	// ReconnectLower and ReconnectUpper bound the random pause before a host that did not answer is asked again
	// whether it is there. The leader's heartbeats, and calls that wait for the leader, have a pace of their own.
	// Defaults: 100ms, 1s.
	ReconnectLower, ReconnectUpper time.Duration

	Logger   *slog.Logger // default: none
	Observer Observer
}

// Observer is told what happens. Every function may be nil; none may block.
type Observer struct {
	Health   func(Health)                                   // it has changed
	Write    func(level Level, took time.Duration, ok bool) // a write of this node's ended
	Read     func(hit bool)                                 // a read of this node's; beside Stats, for sampling
	Elected  func(term uint64)                              // this node became the leader
	Transfer func(received bool, entries int64, bytes int64, took time.Duration)
	Emptied  func(reason string) // the node dropped all its data (P11)
}

// Secret is a string that is not printed.
type Secret string

// String returns asterisks.
func (Secret) String() string { return "***" }

// GoString returns asterisks too.
func (Secret) GoString() string { return "***" }

const (
	maxHosts  = 64
	maxCaches = 1024
	maxValue  = 16 << 20
	maxTxn    = 32 << 20 // bytes of one request
	maxName   = 255

	// DefaultCache is the cache that is meant where none is named.
	DefaultCache = "default"

	// MaxKey is how many bytes a key may have.
	MaxKey = 64 << 10
)

func (o Options) withDefaults() Options {
	if o.MaxEntries == 0 {
		o.MaxEntries = 1_000_000
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 256 << 20
	}
	return o
}

func (o Options) validate(name string) error {
	var errs []error
	if o.MaxEntries < 0 || o.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("cache %q: a bound is negative", name))
	}
	if o.DefaultTTL < 0 || o.DefaultTTL > 0 && o.DefaultTTL < time.Millisecond {
		errs = append(errs, fmt.Errorf("cache %q: the default TTL must be at least a millisecond, or 0 for none", name))
	}
	return errors.Join(errs...)
}

// EnsureDefaults fills in what is not set.
func (c *Config) EnsureDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.ElectionTimeout, 500*time.Millisecond)
	set(&c.QuorumLossTimeout, max(4*c.ElectionTimeout, 2*time.Second))
	set(&c.OperationTimeout, 10*time.Second)
	set(&c.KeepaliveInterval, 5*time.Second)
	set(&c.KeepaliveTimeout, 5*time.Second)
	set(&c.ReconnectLower, 100*time.Millisecond)
	set(&c.ReconnectUpper, max(time.Second, c.ReconnectLower))
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Default = c.Default.withDefaults()
	caches := make(map[string]Options, len(c.Caches))
	for name, o := range c.Caches {
		caches[name] = o.withDefaults()
	}
	c.Caches = caches
	if len(c.Hosts) == 0 && c.Self == "" {
		c.Self = "self:0"
		c.Hosts = []string{c.Self}
	}
	if c.Listen == "" {
		if _, port, err := net.SplitHostPort(c.Self); err == nil {
			c.Listen = net.JoinHostPort("", port)
		}
	}
}

// alone reports whether there is no other host, and none can come: then there is no network.
func (c *Config) alone() bool { return len(c.Hosts) == 1 && c.Layer == nil }

// Validate reports everything that is wrong, with what to do about it.
func (c *Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("cache: "+format, args...)) }
	seen := map[string]bool{}
	for _, h := range c.Hosts {
		host, port, err := net.SplitHostPort(h)
		n, numErr := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || numErr != nil || host == "" || n == 0 && len(c.Hosts) > 1:
			fault("host %q is not host:port", h)
		case seen[h]:
			fault("host %q is listed twice", h)
		}
		seen[h] = true
	}
	if len(c.Hosts) > maxHosts {
		fault("%d hosts; at most %d can form a cache", len(c.Hosts), maxHosts)
	}
	if !slices.Contains(c.Hosts, c.Self) {
		fault("own address %q is not in the list of hosts", c.Self)
	}
	if !c.alone() && c.Layer == nil && c.AuthToken == "" {
		fault("the auth token is not set; give all nodes the same one")
	}
	if err := c.Default.validate("(default)"); err != nil {
		errs = append(errs, err)
	}
	for name, o := range c.Caches {
		if err := checkName(name); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, o.validate(name))
	}
	if len(c.Caches) > maxCaches {
		fault("%d caches; at most %d are possible", len(c.Caches), maxCaches)
	}
	for what, d := range map[string]time.Duration{
		"election timeout": c.ElectionTimeout, "quorum loss timeout": c.QuorumLossTimeout, "operation timeout": c.OperationTimeout,
		"keepalive interval": c.KeepaliveInterval, "keepalive timeout": c.KeepaliveTimeout,
		"lower reconnect timeout": c.ReconnectLower, "upper reconnect timeout": c.ReconnectUpper,
	} {
		if d < 10*time.Millisecond {
			fault("the %s is %v; it must be at least 10ms", what, d)
		}
	}
	if c.QuorumLossTimeout < 2*c.ElectionTimeout {
		fault("the quorum loss timeout (%v) must be at least twice the election timeout (%v)", c.QuorumLossTimeout, c.ElectionTimeout)
	}
	if c.ReconnectUpper < c.ReconnectLower {
		fault("the upper reconnect timeout is below the lower one")
	}
	errs = append(errs, c.TLS.validate())
	return errors.Join(errs...)
}

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w: the name of a cache has 1 to %d bytes, not %d", ErrInvalid, maxName, len(name))
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("%w: the name of a cache is UTF-8, not %q", ErrInvalid, name)
	}
	return nil
}

// Layer carries connections between nodes that have proven who they are. Addresses are entries of
// Config.Hosts.
type Layer interface {
	Accept() (net.Conn, error) // net.ErrClosed after Close
	Dial(ctx context.Context, host string) (net.Conn, error)
	Close() error
	Addr() net.Addr
}
