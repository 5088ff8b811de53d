package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/physical"
)

// Config is how to reach the servers and what is whose on them.
type Config struct {
	// URLs are the servers, "nats://host:4222" or "tls://host:4222"; others of their cluster are found by themselves. Default
	// "nats://127.0.0.1:4222".
	URLs []string

	// Bucket is the key-value bucket, made if it is not there. Default "locum".
	Bucket string

	// Key is the lock's key in it. Default "lock".
	Key string

	// Replicas is on how many servers a bucket that is made here is kept: 1, 3 or 5. Default 1.
	Replicas int

	// CredentialsFile is a file with a user's JWT and seed, NKeyFile one with an nkey's seed. At most one of them,
	// Username, and Token.
	CredentialsFile string
	NKeyFile        string

	// Username and Password log in.
	Username string
	Password physical.Secret

	// PasswordFile is a file with the password, read for each new connection. Instead of Password.
	PasswordFile string

	// Token logs in without a user.
	Token physical.Secret

	// TLS says whether to demand TLS, with the settings in ClientTLS, which imply it, as does a URL with tls://.
	TLS       bool
	ClientTLS physical.ClientTLS

	// Logger gets what an operator should know. Default: discarded.
	Logger *slog.Logger
}

// tokens are what a bucket or key may be called.
var tokens = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (c *Config) ensureDefaults() {
	if len(c.URLs) == 0 {
		c.URLs = []string{client.DefaultURL}
	}
	if c.Bucket == "" {
		c.Bucket = "locum"
	}
	if c.Key == "" {
		c.Key = "lock"
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// validate reports all faults at once. No message shows a URL: it may hold a password.
func (c *Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for i, u := range c.URLs {
		if p, err := url.Parse(u); err != nil || p.Host == "" || p.Scheme != "nats" && p.Scheme != "tls" && p.Scheme != "ws" && p.Scheme != "wss" {
			fault("address %d: write nats://host:4222 or tls://host:4222", i+1)
		}
	}
	for what, name := range map[string]string{"bucket": c.Bucket, "key": c.Key} {
		if !tokens.MatchString(name) {
			fault("%s %q: write up to 64 letters, digits, \"_\" and \"-\"", what, name)
		}
	}
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		fault("replicas is %d: write 1, 3 or 5", c.Replicas)
	}
	ways := 0
	for _, given := range []bool{c.CredentialsFile != "", c.NKeyFile != "", c.Username != "", c.Token != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		fault("more than one way to log in: give a credentials file, an nkey file, a username, or a token")
	}
	if c.Password != "" && c.PasswordFile != "" {
		fault("a password and a file with one: give one of them")
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	return nil
}

// dialer has the library dial through a Set.
type dialer struct {
	set *conns.Set
	ctx context.Context
}

const (
	dialTimeout   = 3 * time.Second
	reconnectWait = 250 * time.Millisecond
	pingEvery     = 5 * time.Second
)

func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, dialTimeout)
	defer cancel()
	return d.set.Dial(ctx, network, address)
}

// options are the library's settings. Nothing is kept for later while there is no connection: what Locum wrote long ago must not arrive.
func (c *Config) options(d dialer) ([]client.Option, error) {
	o := []client.Option{
		client.Name("locum"), client.SetCustomDialer(d), client.Timeout(dialTimeout), client.MaxReconnects(-1),
		client.ReconnectWait(reconnectWait), client.ReconnectJitter(reconnectWait, reconnectWait), client.ReconnectBufSize(-1),
		client.PingInterval(pingEvery), client.MaxPingsOutstanding(2), client.IgnoreAuthErrorAbort(),
		client.DisconnectErrHandler(func(_ *client.Conn, err error) {
			if err != nil && d.ctx.Err() == nil {
				c.Logger.Warn("NATS: disconnected", "error", err.Error())
			}
		}),
	}
	if c.TLS || !c.ClientTLS.IsZero() {
		settings, err := c.ClientTLS.Load()
		if err != nil {
			return nil, fmt.Errorf("nats: TLS: %w", err)
		}
		o = append(o, client.Secure(settings))
	}
	switch {
	case c.CredentialsFile != "":
		o = append(o, client.UserCredentials(c.CredentialsFile))
	case c.NKeyFile != "":
		nkey, err := client.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, errors.New("nats: the nkey file cannot be read, or holds no seed")
		}
		o = append(o, nkey)
	case c.Token != "":
		o = append(o, client.Token(c.Token.Reveal()))
	case c.Username != "":
		o = append(o, client.UserInfoHandler(c.login))
	}
	return o, nil
}

func (c *Config) login() (user, password string) {
	if c.PasswordFile == "" {
		return c.Username, c.Password.Reveal()
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		c.Logger.Warn("NATS: the password file cannot be read", "error", err.Error())
	}
	return c.Username, strings.TrimRight(string(text), "\r\n")
}

// Kind is the store's name in the configuration.
func (Config) Kind() string { return "nats" }

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
