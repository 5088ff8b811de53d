package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/physical"
)

// Pooler says whether a transaction pooler stands between Locum and the database.
type Pooler string

// The answers. A pooler in transaction mode gives each statement another session: no prepared statements
// there, no settings of a session, and no LISTEN.
const (
	PoolerDetect Pooler = ""    // find out when opening: a pooler gives out process ids of its own
	PoolerYes    Pooler = "yes" // the simple query protocol
	PoolerNo     Pooler = "no"
)

// Config is how to reach the database and what is whose in it.
type Config struct {
	// URL is a connection URL as libpq takes it, postgres://user@host1:5432,host2:5432/database?sslmode=verify-full,
	// or the same as keyword/value string. Several hosts are tried in turn until one takes writes. Required.
	URL physical.Secret

	// ListenURL reaches the database without a transaction pooler, for LISTEN. Default: URL, where that is
	// not a transaction pooler; else the lock is polled.
	ListenURL physical.Secret

	// Password replaces the URLs'. "": theirs, or as libpq finds it (PGPASSWORD, ~/.pgpass).
	Password physical.Secret

	// PasswordFile is a file with the password, read for each new connection, so that a changed one is found. Instead of
	// Password.
	PasswordFile string

	// Schema is where the tables are, made if it is not there. Default: the first schema of the search path.
	Schema string

	// Prefix is what the names of tables and functions begin with. Default "locum_".
	Prefix string

	// MaxConns is how many connections one node opens for entries. Two more are for the lock, and one for LISTEN. Default 12.
	MaxConns int

	// Pooler says whether URL leads to a transaction pooler. Default: found out.
	Pooler Pooler

	// ConnectTimeout bounds the making of one connection to one host, unless the URL has connect_timeout. Default 5 s.
	ConnectTimeout time.Duration

	// Logger gets what an operator should know. Default: discarded.
	Logger *slog.Logger
}

const (
	defaultPrefix   = "locum_"
	defaultMaxConns = 12
	connectTimeout  = 5 * time.Second
)

// names are what tables may be called: they must need no quotes.
var names = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,29}$`)

// ensureDefaults fills in what was left out.
func (c *Config) ensureDefaults() {
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// validate reports all faults at once. No message shows a URL: they hold passwords.
func (c *Config) validate() error {
	var faults []error
	if c.URL == "" {
		faults = append(faults, errors.New("connection_url is required"))
	}
	if c.Password != "" && c.PasswordFile != "" {
		faults = append(faults, errors.New("a password and a file with one: give one of them"))
	}
	if c.Schema != "" && !names.MatchString(c.Schema) {
		faults = append(faults, fmt.Errorf("schema %q: write lower-case letters, digits and \"_\", at most 30", c.Schema))
	}
	if !names.MatchString(c.Prefix) {
		faults = append(faults, fmt.Errorf("table_prefix %q: write lower-case letters, digits and \"_\", at most 30", c.Prefix))
	}
	if c.MaxConns < 2 {
		faults = append(faults, fmt.Errorf("max_connections is %d: at least 2 are needed", c.MaxConns))
	}
	switch c.Pooler {
	case PoolerDetect, PoolerYes, PoolerNo:
	default:
		faults = append(faults, fmt.Errorf("pooler %q: write \"yes\" or \"no\", or leave it out", c.Pooler))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("postgresql: %w", err)
	}
	return nil
}

// pool makes the settings of the pool of connections; pooler says how to talk.
func (c *Config) pool(set *conns.Set, pooler bool) (*pgxpool.Config, error) {
	p, err := pgxpool.ParseConfig(c.URL.Reveal())
	if err != nil {
		return nil, errURL("connection_url")
	}
	p.MaxConns = int32(c.MaxConns)
	p.MinConns, p.MinIdleConns = 0, 0
	p.MaxConnLifetime, p.MaxConnLifetimeJitter = time.Hour, 10*time.Minute
	p.MaxConnIdleTime = 5 * time.Minute
	c.adapt(p.ConnConfig, set, pooler)
	p.BeforeConnect = c.setPassword
	return p, nil
}

// listen makes the settings of the connection that listens.
func (c *Config) listen(set *conns.Set) (*pgx.ConnConfig, error) {
	url := c.ListenURL
	if url == "" {
		url = c.URL
	}
	p, err := pgx.ParseConfig(url.Reveal())
	if err != nil {
		return nil, errURL("listen_url")
	}
	c.adapt(p, set, false)
	return p, nil
}

// errURL names no part of the URL: what the library says of it may quote the password.
func errURL(field string) error {
	return fmt.Errorf("postgresql: %s cannot be read: write postgres://user@host:5432/database?sslmode=verify-full, with special characters in a password as %%XX", field)
}

// adapt sets what Locum needs of every connection.
func (c *Config) adapt(p *pgx.ConnConfig, set *conns.Set, pooler bool) {
	p.DialFunc = set.Dial
	if p.ConnectTimeout == 0 {
		p.ConnectTimeout = c.ConnectTimeout
	}
	if p.ValidateConnect == nil {
		p.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite // never a replica
	}
	if pooler {
		p.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		return
	}
	p.StatementCacheCapacity = 32
	for name, value := range map[string]string{
		"application_name":              "locum",
		"default_transaction_isolation": "read committed",
		// The server finds out within half a minute that a client's host is gone.
		"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
	} {
		if p.RuntimeParams[name] == "" {
			p.RuntimeParams[name] = value
		}
	}
}

func (c *Config) setPassword(_ context.Context, p *pgx.ConnConfig) error {
	if c.Password != "" {
		p.Password = c.Password.Reveal()
	}
	if c.PasswordFile == "" {
		return nil
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return fmt.Errorf("password: %w", err)
	}
	p.Password = strings.TrimRight(string(text), "\r\n")
	return nil
}

// Kind is the store's name in the configuration.
func (Config) Kind() string { return "postgresql" }

// OpenStores opens it for entries and lock.
func (c Config) OpenStores(ctx context.Context, host physical.Host) (physical.Stores, error) {
	if c.Logger == nil {
		c.Logger = host.Logger
	}
	return physical.Both(Open(ctx, c))
}

var _ physical.Opener = Config{}
