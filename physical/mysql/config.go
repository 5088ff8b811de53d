package mysql

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

	client "github.com/go-sql-driver/mysql"

	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/physical"
)

// Config is how to reach the server and what is whose on it.
type Config struct {
	// Addresses are the servers' "host:port", or paths of sockets. They are tried in turn until one takes writes. Default
	// "127.0.0.1:3306".
	Addresses []string

	// Username and Password log in. Default username: "locum".
	Username string
	Password physical.Secret

	// PasswordFile is a file with the password, read for each new connection. Instead of Password.
	PasswordFile string

	// Database is the database with Locum's tables. It must be there. Default "locum".
	Database string

	// Prefix is what the names of tables begin with. Default "locum_".
	Prefix string

	// TLS says whether to demand TLS, with the settings in ClientTLS, which imply it.
	TLS       bool
	ClientTLS physical.ClientTLS

	// MaxConns is how many connections one node opens for entries. Three more are for the lock. Default 24.
	MaxConns int

	// SingleWriter promises that all nodes reach the same one of several servers that take writes (Galera, group
	// replication in multi-primary mode).
	SingleWriter bool

	// Logger gets what an operator should know. Default: discarded.
	Logger *slog.Logger
}

const (
	defaultMaxConns = 24
	dialTimeout     = 5 * time.Second
)

// names are what databases and tables may be called: they must need no quotes.
var names = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,39}$`)

func (c *Config) ensureDefaults() {
	if len(c.Addresses) == 0 {
		c.Addresses = []string{"127.0.0.1:3306"}
	}
	if c.Username == "" {
		c.Username = "locum"
	}
	if c.Database == "" {
		c.Database = "locum"
	}
	if c.Prefix == "" {
		c.Prefix = "locum_"
	}
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
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
		if _, _, err := net.SplitHostPort(a); err != nil && !strings.HasPrefix(a, "/") {
			fault("address %q: write host:port, such as \"db.example.com:3306\", or the path of a socket", a)
		}
	}
	if !names.MatchString(c.Database) {
		fault("database %q: write letters, digits and \"_\", at most 40", c.Database)
	}
	if !names.MatchString(c.Prefix) {
		fault("table_prefix %q: write letters, digits and \"_\", at most 40", c.Prefix)
	}
	if c.Password != "" && c.PasswordFile != "" {
		fault("a password and a file with one: give one of them")
	}
	if c.MaxConns < 3 {
		fault("max_connections is %d: at least 3 are needed", c.MaxConns)
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("mysql: %w", err)
	}
	return nil
}

// options are the library's settings, without address and password.
func (c *Config) options(set *conns.Set) (*client.Config, error) {
	o := client.NewConfig()
	o.User, o.DBName = c.Username, c.Database
	o.DialFunc, o.Timeout = set.Dial, dialTimeout
	o.InterpolateParams, o.MultiStatements = true, true
	o.RejectReadOnly = true // a server that was demoted: look for the one that takes writes
	o.Logger = &client.NopLogger{}
	o.ConnectionAttributes = "program_name:locum"
	if c.TLS || !c.ClientTLS.IsZero() {
		settings, err := c.ClientTLS.Load()
		if err != nil {
			return nil, fmt.Errorf("mysql: TLS: %w", err)
		}
		o.TLS = settings
	}
	return o, nil
}

// at completes the settings for one server.
func (c *Config) at(o *client.Config, address string) (*client.Config, error) {
	o = o.Clone()
	o.Net, o.Addr = "tcp", address
	if strings.HasPrefix(address, "/") {
		o.Net, o.TLS = "unix", nil
	}
	if o.TLS != nil && o.TLS.ServerName == "" {
		o.TLS = withServerName(o.TLS, address)
	}
	o.Passwd = c.Password.Reveal()
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("password: %w", err)
		}
		o.Passwd = strings.TrimRight(string(text), "\r\n")
	}
	return o, nil
}

func withServerName(settings *tls.Config, address string) *tls.Config {
	settings = settings.Clone()
	settings.ServerName, _, _ = net.SplitHostPort(address)
	return settings
}

// Kind is the store's name in the configuration.
func (Config) Kind() string { return "mysql" }

// OpenStores opens it for entries and lock.
func (c Config) OpenStores(ctx context.Context, host physical.Host) (physical.Stores, error) {
	if c.Logger == nil {
		c.Logger = host.Logger
	}
	return physical.Both(Open(ctx, c))
}

var _ physical.Opener = Config{}
