package mysql

import (
	"strings"
	"testing"

	"github.com/locum-ha/locum/internal/frozen"
)

// The rows of the first version are read, and written as they were.
func (p *place) testFrozenRows(t *testing.T) {
	s, err := open(p.config(""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	admin := p.admin(t)
	for _, statement := range []string{
		"INSERT INTO @entries (k, v) VALUES ('a/b', X'00ff')",
		"UPDATE @fence SET format = 1, lineage = 'l', term = 7, nonce = X'010000000000000000000000000000ff' WHERE id = 1",
		"UPDATE @lock SET format = 1, holder = '', name = 'node', term = 7, next = 'other', token = '', beat = 9, ttl_us = 5000000, " +
			"expires = '2026-01-01 00:00:00', clock = 'other:3306:1' WHERE id = 1",
	} {
		if _, err := admin.Exec(s.schema.expand(statement)); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	frozen.Rows(t, s, func() string {
		var rows [4]string
		err := admin.QueryRow(s.schema.expand("SELECT "+
			"(SELECT LOWER(GROUP_CONCAT(HEX(k), ' ', HEX(v) ORDER BY k SEPARATOR '\n')) FROM @entries), "+
			"(SELECT LOWER(CONCAT_WS(' ', id, format, lineage, term, HEX(nonce))) FROM @fence), "+
			"(SELECT CONCAT_WS(' ', id, format, holder, name, term, CONCAT('\"', next, '\"'), LENGTH(token), beat, ttl_us) FROM @lock), "+
			"(SELECT clock = @server FROM @lock)")).Scan(&rows[0], &rows[1], &rows[2], &rows[3])
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(rows[:], "\n")
	}, "612f62 00ff\nc3bc ff00\n1 1 l 8 00000000000000000000000000000002\n1 1 id node 8 \"\" 16 1 60000000\n1")
}
