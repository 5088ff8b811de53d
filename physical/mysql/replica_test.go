package mysql

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/locum-ha/locum/physical"
)

// read_only is a number, and from MariaDB 12 on a word: OFF, ON, NO_LOCK or NO_LOCK_NO_ADMIN.
func TestWritable(t *testing.T) {
	for _, c := range []struct {
		value driver.Value
		want  bool
	}{
		{int64(0), true}, {int64(1), false}, {[]byte("0"), true}, {[]byte("1"), false}, {[]byte("OFF"), true}, {"off", true},
		{[]byte("ON"), false}, {[]byte("NO_LOCK"), false}, {"NO_LOCK_NO_ADMIN", false}, {nil, false},
	} {
		if got := writable(c.value); got != c.want {
			t.Errorf("read_only = %s: %v", c.value, got)
		}
	}
}

// P1: of several servers one that replicates another and takes writes all the same is refused: a node that cannot reach the
// primary would take it for that. Where the right to see it is missing, a warning says what to do.
func (p *place) testReplicaThatTakesWrites(t *testing.T) {
	admin := p.admin(t)
	do := func(statement string) {
		t.Helper()
		if _, err := admin.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	opened := func(change func(*Config)) error {
		cfg := p.config("")
		cfg.Addresses = append(cfg.Addresses, "127.0.0.1:1")
		change(&cfg)
		s, err := open(cfg)
		if err == nil {
			err = s.Close()
		}
		return err
	}
	do("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1, MASTER_USER = 'nobody', MASTER_PASSWORD = ''")
	do("START SLAVE")
	defer do("RESET SLAVE ALL")
	defer do("STOP SLAVE")
	var log bytes.Buffer
	if err := opened(func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }); err != nil {
		t.Errorf("without the right to see it: %v", err)
	}
	if n := strings.Count(log.String(), "read_only = ON"); n != 1 || !strings.Contains(log.String(), "REPLICA MONITOR") {
		t.Errorf("the log is %q", log.String())
	}
	do("GRANT REPLICA MONITOR ON *.* TO 'locum'@'%'")
	defer do("REVOKE REPLICA MONITOR ON *.* FROM 'locum'@'%'")
	if err := opened(func(*Config) {}); !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "set read_only = ON there") {
		t.Errorf("a replica that takes writes: %v", err)
	}
	if err := opened(func(c *Config) { c.SingleWriter = true }); err != nil {
		t.Errorf("with single_writer: %v", err)
	}
	if err := opened(func(c *Config) { c.Addresses = c.Addresses[:1] }); err != nil {
		t.Errorf("the only server: %v", err)
	}
	do("STOP SLAVE")
	if err := opened(func(*Config) {}); err != nil {
		t.Errorf("a replica that was made the primary: %v", err)
	}
}
