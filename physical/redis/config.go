package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	client "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/physical"
)

// Config is how to reach the server and what is whose on it.
type Config struct {
	// Addresses are the server's "host:port"; several ones of a cluster, or of the sentinels. Default "127.0.0.1:6379".
	Addresses []string

	// SentinelMaster is the name of the master that the sentinels at Addresses watch. "": no sentinels.
	SentinelMaster string

	// Cluster says that Addresses are nodes of a cluster.
	Cluster bool

	// Username and Password log in to the server; Username "" is the default user.
	Username string
	Password physical.Secret

	// PasswordFile is a file with the password, read for each new connection. Instead of Password.
	PasswordFile string

	// SentinelUsername and SentinelPassword log in to the sentinels.
	SentinelUsername string
	SentinelPassword physical.Secret

	// Database is the number of the database; a cluster has 0 alone. Default 0.
	Database int

	// Prefix begins the names of the two keys and of the channel. Default "locum".
	Prefix string

	// TLS says whether to use TLS, with the settings in ClientTLS, which imply it.
	TLS       bool
	ClientTLS physical.ClientTLS

	// WaitReplicas is how many replicas must have the lock, and each renewal, before it counts. Default 0.
	WaitReplicas int

	// WaitTimeout bounds the wait for the replicas. Default 500 ms.
	WaitTimeout time.Duration

	// Logger gets what an operator should know. Default: discarded.
	Logger *slog.Logger
}

const (
	dialTimeout = 3 * time.Second
	readTimeout = 3 * time.Second // for which a connection that nobody answers on is kept after its caller has gone
	poolSize    = 16
)

var prefixes = regexp.MustCompile(`^[A-Za-z0-9_./:-]{1,100}$`)

func (c *Config) ensureDefaults() {
	if len(c.Addresses) == 0 {
		c.Addresses = []string{"127.0.0.1:6379"}
	}
	if c.Prefix == "" {
		c.Prefix = "locum"
	}
	if c.WaitTimeout == 0 {
		c.WaitTimeout = 500 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// validate reports all faults at once.
func (c *Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, a := range c.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			fault("address %q: write host:port, such as \"redis.example.com:6379\"", a)
		}
	}
	if len(c.Addresses) > 1 && !c.Cluster && c.SentinelMaster == "" {
		fault("several addresses: write sentinel_master, or cluster = true; one server has one address")
	}
	if c.Cluster && c.SentinelMaster != "" {
		fault("cluster and sentinel_master: write one of them")
	}
	if c.Cluster && c.Database != 0 {
		fault("database %d: a cluster has database 0 alone", c.Database)
	}
	if c.Database < 0 {
		fault("database %d: write 0 or more", c.Database)
	}
	if !prefixes.MatchString(c.Prefix) {
		fault("prefix %q: write up to 100 letters, digits and \"_./:-\"", c.Prefix)
	}
	if c.Password != "" && c.PasswordFile != "" {
		fault("a password and a file with one: give one of them")
	}
	if c.WaitReplicas < 0 || c.WaitTimeout < 0 {
		fault("wait_replicas and wait_timeout must not be negative")
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

// secure reports whether TLS is asked for.
func (c *Config) secure() bool { return c.TLS || !c.ClientTLS.IsZero() }

// dialer connects, by TLS where that is asked for.
func (c *Config) dialer(set *conns.Set) (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	if !c.secure() {
		return set.Dial, nil
	}
	settings, err := c.ClientTLS.Load()
	if err != nil {
		return nil, fmt.Errorf("redis: TLS: %w", err)
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := set.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s := settings.Clone()
		if s.ServerName == "" {
			s.ServerName, _, _ = net.SplitHostPort(address)
		}
		secure := tls.Client(raw, s)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		return secure, nil
	}, nil
}

// options are the library's settings. It makes single attempts: a repeated Acquire would find its own lock held.
func (c *Config) options(set *conns.Set) (*client.UniversalOptions, error) {
	dial, err := c.dialer(set)
	if err != nil {
		return nil, err
	}
	return &client.UniversalOptions{
		Addrs: c.Addresses, MasterName: c.SentinelMaster, IsClusterMode: c.Cluster, DB: c.Database,
		CredentialsProviderContext: c.credentials,
		SentinelUsername:           c.SentinelUsername, SentinelPassword: c.SentinelPassword.Reveal(),
		ClientName: "locum", DisableIdentity: true, Protocol: 2, Dialer: dial, DialTimeout: dialTimeout, DialerRetries: 1,
		ReadTimeout: readTimeout, WriteTimeout: readTimeout, ContextTimeoutEnabled: true, MaxRetries: -1,
		PoolSize: poolSize, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}, nil
}

func (c *Config) credentials(context.Context) (user, password string, err error) {
	if c.PasswordFile == "" {
		return c.Username, c.Password.Reveal(), nil
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", "", fmt.Errorf("password: %w", err)
	}
	return c.Username, strings.TrimRight(string(text), "\r\n"), nil
}

// Kind is the store's name in the configuration.
func (Config) Kind() string { return "redis" }

// OpenStores opens it for the lock alone.
func (c Config) OpenStores(ctx context.Context, host physical.Host) (physical.Stores, error) {
	if c.Logger == nil {
		c.Logger = host.Logger
	}
	s, err := Open(ctx, c)
	if err != nil {
		return physical.Stores{}, err
	}
	return physical.Stores{Lock: s}, nil
}

var _ physical.Opener = Config{}
