package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// schema is the tables by their full names.
type schema struct {
	database                   string
	entries, fence, lock, keys string
}

func newSchema(database, prefix string) schema {
	of := func(what string) string { return "`" + database + "`.`" + prefix + what + "`" }
	return schema{database: database, entries: of("entries"), fence: of("fence"), lock: of("lock"), keys: of("keys")}
}

func (s schema) expand(text string) string {
	return strings.NewReplacer("@entries", s.entries, "@fence", s.fence, "@lock", s.lock, "@keys", s.keys,
		"@server", "CONCAT(@@hostname, ':', @@port, ':', @@server_id)").Replace(text)
}

// keyLocks is how many locks stand for all keys. Two commits whose keys share one go one after the other.
const keyLocks = 1 << 14

// tables makes the tables and their rows. Each statement may be repeated, and be run by several nodes at once.
var tables = []string{
	"CREATE TABLE IF NOT EXISTS @entries (k VARBINARY(2048) NOT NULL PRIMARY KEY, v LONGBLOB NOT NULL) ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
	"CREATE TABLE IF NOT EXISTS @fence (id TINYINT NOT NULL PRIMARY KEY, format INT NOT NULL DEFAULT 1, lineage VARBINARY(255) NOT NULL DEFAULT '', " +
		"term BIGINT UNSIGNED NOT NULL DEFAULT 0, nonce BINARY(16) NOT NULL DEFAULT '') ENGINE=InnoDB",
	"CREATE TABLE IF NOT EXISTS @lock (id TINYINT NOT NULL PRIMARY KEY, format INT NOT NULL DEFAULT 1, holder VARBINARY(255) NOT NULL DEFAULT '', " +
		"name VARBINARY(255) NOT NULL DEFAULT '', term BIGINT UNSIGNED NOT NULL DEFAULT 0, next VARBINARY(255) NOT NULL DEFAULT '', " +
		"token VARBINARY(16) NOT NULL DEFAULT '', beat BIGINT UNSIGNED NOT NULL DEFAULT 0, ttl_us BIGINT NOT NULL DEFAULT 0, " +
		"expires DATETIME(6) NOT NULL DEFAULT '2000-01-01 00:00:00', clock VARBINARY(512) NOT NULL DEFAULT '') ENGINE=InnoDB",
	"CREATE TABLE IF NOT EXISTS @keys (b INT NOT NULL PRIMARY KEY) ENGINE=InnoDB",
	"INSERT IGNORE INTO @fence (id) VALUES (1)",
	"INSERT IGNORE INTO @lock (id) VALUES (1)",
	"INSERT IGNORE INTO @keys SELECT a.n * 1024 + b.n * 32 + c.n FROM (" + digits(16) + ") a, (" + digits(32) + ") b, (" + digits(32) + ") c",
}

// digits is a query for the numbers below n.
func digits(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("SELECT %d AS n", i)
	}
	return strings.Join(all, " UNION ALL ")
}

// formatVersion is the format of fence and lock that this code knows.
const formatVersion = 1

// newer refuses what a later version of Locum has written.
func newer(table string, format int) error {
	if format > formatVersion {
		return fmt.Errorf("%w: %s has format %d, and this version of Locum knows %d: update this node", physical.ErrUnavailable, table, format, formatVersion)
	}
	return nil
}

// script is all that an administrator would run by hand.
func (s schema) script() string { return s.expand(strings.Join(tables, ";\n")) + ";" }

// grants is what an administrator runs for a user who lacks rights.
func (s schema) grants(user string) string {
	return fmt.Sprintf("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `%s`.* TO '%s'@'%%';\nGRANT PROCESS ON *.* TO '%s'@'%%'; -- to end sessions that block the fence", s.database, user, user)
}

// limits is what the server says of itself.
type limits struct {
	version          string
	packet           int64
	galera           bool
	groupMultiWriter bool
}

// unfit says why a server cannot be used, or nil.
func (l limits) unfit(singleWriter bool) error {
	if (l.galera || l.groupMultiWriter) && !singleWriter {
		return fmt.Errorf("mysql: this server is one of several that take writes (version %s): they do not see each other's row locks, so the fence would not hold; have all nodes reach the same server and set single_writer = true", l.version)
	}
	if l.packet < 1<<20 {
		return fmt.Errorf("mysql: max_allowed_packet is %d; set it to 16M or more", l.packet)
	}
	return nil
}

// read takes what SHOW GLOBAL VARIABLES says.
func (l *limits) read(variables map[string]string) {
	l.galera = variables["wsrep_on"] == "ON"
	l.groupMultiWriter = variables["group_replication_single_primary_mode"] == "OFF" && variables["group_replication_group_name"] != ""
}

func (s *Store) ask(ctx context.Context) (l limits, err error) {
	if err = s.query(ctx, s.calls, false, "SELECT @@version, @@max_allowed_packet", nil, &l.version, &l.packet); err != nil {
		return l, err
	}
	variables := map[string]string{}
	rows, err := s.db.QueryContext(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('wsrep_on', 'group_replication_single_primary_mode', 'group_replication_group_name')")
	if err != nil {
		return l, s.failed(ctx, err, false)
	}
	defer rows.Close()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return l, s.failed(ctx, err, false)
		}
		variables[strings.ToLower(name)] = value
	}
	l.read(variables)
	return l, s.failed(ctx, rows.Err(), false)
}

// setUp sees to it that the tables are there with their rows.
func (s *Store) setUp(ctx context.Context) error {
	var rows int
	err := s.query(ctx, s.db, false, s.schema.expand("SELECT (SELECT COUNT(*) FROM @fence) + (SELECT COUNT(*) FROM @lock) + (SELECT COUNT(*) FROM @keys) + (SELECT COUNT(*) FROM @entries WHERE k = '')"), nil, &rows)
	if err == nil && rows == keyLocks+2 {
		return nil
	}
	if errors.Is(err, physical.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	for _, statement := range tables {
		if _, err := s.db.ExecContext(ctx, s.schema.expand(statement)); err != nil {
			return s.unmade(ctx, err)
		}
	}
	return nil
}

// unmade is why the tables could not be made.
func (s *Store) unmade(ctx context.Context, err error) error {
	if slices.Contains(rights, number(err)) {
		return fmt.Errorf("mysql: the tables are not there, and the user %q must not make them (%w); grant it that:\n%s\nor run as an administrator:\n%s",
			s.cfg.Username, plain(err), s.schema.grants(s.cfg.Username), s.schema.script())
	}
	return fmt.Errorf("make the tables: %w", s.failed(ctx, err, false))
}
