package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/locum-ha/locum/internal/frozen"
	"github.com/locum-ha/locum/physical"
)

// The rows of the first version are read, and written as they were.
func (p *place) testFrozenRows(t *testing.T) {
	schema := p.fresh()
	s, err := open(Config{URL: physical.Secret(p.server.URL(p.server.Addr)), Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p.admin(t, s.schema.expand(`INSERT INTO @entries (key, value) VALUES ('a/b', '\x00ff');
		UPDATE @fence SET format = 1, lineage = 'l', term = 7, nonce = '\x010000000000000000000000000000ff' WHERE id = 1;
		UPDATE @lock SET format = 1, holder = '', name = 'node', term = 7, next = 'other', token = '', beat = 9, ttl_us = 5000000,
			expires = '2026-01-01', clock = '2025-01-01' WHERE id = 1`))
	frozen.Rows(t, s, func() (rows string) {
		conn, err := pgx.Connect(t.Context(), p.server.AdminURL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		err = conn.QueryRow(t.Context(), s.schema.expand(`SELECT
			(SELECT string_agg(key || ' ' || encode(value, 'hex'), E'\n' ORDER BY key) FROM @entries) || E'\nfence ' ||
			(SELECT concat_ws(' ', id, format, lineage, term, encode(nonce, 'hex')) FROM @fence) || E'\nlock ' ||
			(SELECT concat_ws(' ', id, format, holder, name, term, '"' || next || '"', length(token), beat, ttl_us, expires > now(), clock = pg_postmaster_start_time()) FROM @lock)`)).Scan(&rows)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}, "a/b 00ff\nü ff00\nfence 1 1 l 8 00000000000000000000000000000002\nlock 1 1 id node 8 \"\" 16 1 60000000 t t")
}
