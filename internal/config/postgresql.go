package config

import "github.com/locum-ha/locum/physical"

// PostgreSQLStorage is a PostgreSQL server, 12 or later. See docs/stores/postgresql.md.
type PostgreSQLStorage struct {
	// ConnectionURL is the database, as libpq takes it: "postgres://user@host1,host2:5432/database?sslmode=verify-full".
	// Several hosts are tried in turn until one takes writes. Required.
	ConnectionURL physical.Secret `hcl:"connection_url"`

	// ListenURL reaches the database itself where connection_url leads to a transaction pooler: standbys are told of
	// changes of the lock there. Default: connection_url; behind a pooler, standbys poll.
	ListenURL physical.Secret `hcl:"listen_url"`

	// PasswordFile is a file with the password, read for each new connection. Default: the password in the URL, or
	// where libpq looks for one.
	PasswordFile string `hcl:"password_file"`

	// PasswordEnv is the name of the environment variable with the password.
	PasswordEnv string `hcl:"password_env"`

	// Schema is the schema with Locum's tables. It is made if it is not there and the user may make it. Default: the first one of
	// the user's search path, as a rule "public".
	Schema string `hcl:"schema"`

	// TablePrefix is what the names of Locum's tables and functions begin with: another one for each cluster in one schema.
	// Default: "locum_".
	TablePrefix string `hcl:"table_prefix"`

	// MaxConnections is how many connections a node opens for entries, besides two for the lock and one that listens.
	// Default: 12.
	MaxConnections int `hcl:"max_connections"`

	// Pooler says whether connection_url leads to a transaction pooler such as PgBouncer: "yes" or "no". Default: found
	// out at the start.
	Pooler string `hcl:"pooler"`
}

// postgreSQL checks a block at path: "storage" or "ha_storage".
func (c *checker) postgreSQL(path string, p PostgreSQLStorage) {
	if p.ConnectionURL == "" {
		c.fault(path+".connection_url", "missing", `write connection_url = "postgres://locum@db.example.com:5432/locum?sslmode=verify-full"`)
	}
	c.onePassword(path, "", p.PasswordFile, p.PasswordEnv)
	if p.MaxConnections < 0 || p.MaxConnections == 1 {
		c.fault(path+".max_connections", "too few", "write at least 2, or remove the line")
	}
	if p.Pooler != "" {
		c.oneOf(path+".pooler", p.Pooler, "yes", "no")
	}
}

// onePassword finds more than one source of a password.
func (c *checker) onePassword(path string, password physical.Secret, file, env string) {
	given := 0
	for _, there := range []bool{password != "", file != "", env != ""} {
		if there {
			given++
		}
	}
	if given > 1 {
		c.fault(path+".password_file", "more than one password", "write one of password, password_file and password_env")
	}
}
