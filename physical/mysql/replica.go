package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// writable reports whether a server takes writes, by its read_only: a number, and from MariaDB 12 on a word.
func writable(readOnly driver.Value) bool {
	switch v := readOnly.(type) {
	case int64:
		return v == 0
	case []byte:
		return string(v) == "0" || strings.EqualFold(string(v), "OFF")
	case string:
		return v == "0" || strings.EqualFold(v, "OFF")
	}
	return false
}

// errReplica: a server takes writes and should not. Of several servers one node could take it for the primary, and another node
// the primary itself: there would be two locks and two fences.
var errReplica = errors.New("the server replicates another one, and takes writes: set read_only = ON there, in its configuration file too " +
	"(or, if all nodes are sure to reach the same server, single_writer = true here)")

// errnoSyntax, errnoDenied: the statement is not known to this version, or not allowed.
const (
	errnoSyntax = 1064
	errnoDenied = 1227
)

// primary returns errReplica for a server that replicates another one at this time. Where the right to see that is missing, it warns, once.
func (c *connector) primary(ctx context.Context, conn driver.Conn) error {
	replica, err := replicates(ctx, conn, "SHOW REPLICA STATUS")
	if number(err) == errnoSyntax {
		replica, err = replicates(ctx, conn, "SHOW SLAVE STATUS")
	}
	switch {
	case number(err) == errnoDenied:
		c.warned.Do(func() {
			c.cfg.Logger.Warn("there are several servers, and whether one is a replica that takes writes cannot be seen", "error", plain(err),
				"hint", "set read_only = ON on each but the primary; GRANT REPLICATION CLIENT ON *.* (MariaDB: REPLICA MONITOR) TO "+c.cfg.Username+" lets such a replica be refused")
		})
		return nil
	case err != nil:
		return fmt.Errorf("is it a replica? %w", err)
	case replica:
		return errReplica
	}
	return nil
}

// replicates reports whether one of the threads that replicate runs.
func replicates(ctx context.Context, conn driver.Conn, statement string) (bool, error) {
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, statement, nil)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	columns := rows.Columns()
	values := make([]driver.Value, len(columns))
	if err := rows.Next(values); err != nil {
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, err
	}
	for _, name := range []string{"Replica_IO_Running", "Slave_IO_Running", "Replica_SQL_Running", "Slave_SQL_Running"} {
		i := slices.Index(columns, name)
		if i < 0 {
			continue
		}
		if text := fmt.Sprintf("%s", values[i]); !strings.EqualFold(text, "No") {
			return true, nil
		}
	}
	return false, nil
}
