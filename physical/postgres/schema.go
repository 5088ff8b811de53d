package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/locum-ha/locum/physical"
)

// schema is the tables and functions by their full names.
type schema struct {
	name, prefix                                          string
	entries, fence, lock                                  string
	commit, raise, acquire, renew, release, look, channel string
}

func newSchema(name, prefix string) schema {
	of := func(what string) string { return name + "." + prefix + what }
	return schema{
		name: name, prefix: prefix,
		entries: of("entries"), fence: of("fence"), lock: of("lock"),
		commit: of("commit_v1"), raise: of("raise_v1"),
		acquire: of("acquire_v1"), renew: of("renew_v1"), release: of("release_v1"), look: of("look_v1"),
		channel: prefix + name,
	}
}

func (s schema) expand(text string) string {
	return strings.NewReplacer("@entries", s.entries, "@fence", s.fence, "@lock", s.lock, "@commit", s.commit, "@raise", s.raise,
		"@acquire", s.acquire, "@renew", s.renew, "@release", s.release, "@look", s.look, "@channel", s.channel).Replace(text)
}

// tables makes the tables. The entries' values are ciphertext: to try to compress them is a waste.
const tables = `
CREATE TABLE IF NOT EXISTS @entries (key text COLLATE "C" PRIMARY KEY, value bytea NOT NULL);
ALTER TABLE @entries ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS @fence (
  id smallint PRIMARY KEY CHECK (id = 1), format integer NOT NULL DEFAULT 1,
  lineage text COLLATE "C" NOT NULL DEFAULT '', term bigint NOT NULL DEFAULT 0, nonce bytea NOT NULL DEFAULT decode(repeat('00', 16), 'hex'));
CREATE TABLE IF NOT EXISTS @lock (
  id smallint PRIMARY KEY CHECK (id = 1), format integer NOT NULL DEFAULT 1,
  holder text NOT NULL DEFAULT '', name text NOT NULL DEFAULT '', term bigint NOT NULL DEFAULT 0, next text NOT NULL DEFAULT '',
  token bytea NOT NULL DEFAULT '', beat bigint NOT NULL DEFAULT 0, ttl_us bigint NOT NULL DEFAULT 0,
  expires timestamptz NOT NULL DEFAULT 'epoch', clock timestamptz NOT NULL DEFAULT 'epoch');
INSERT INTO @fence (id) VALUES (1) ON CONFLICT DO NOTHING;
INSERT INTO @lock (id) VALUES (1) ON CONFLICT DO NOTHING;
`

// commitFunction carries out commits with one fence, of which no two name the same key. Arrays that go together list the
// conditions, where a NULL value stands for absence, the deletions and the puts, with the number of the commit that each belongs to. locks are
// the hashes of all keys, ascending; NULL if they are too many. The result is "f" (fenced) alone, or for each commit whose conditions
// do not all hold, and which was left out, its number, ":" and a key. The index is to be used however small the table was when the
// plan was made.
const commitFunction = `
CREATE OR REPLACE FUNCTION @commit(f_lineage text, f_term bigint, f_nonce bytea, locks integer[],
  c_of integer[], c_keys text[], c_values bytea[], d_of integer[], d_keys text[], p_of integer[], p_keys text[], p_values bytea[])
RETURNS text[] LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  space integer := '@fence'::regclass::oid::bigint::bit(32)::integer;
  h integer; refused integer[] := '{}'; results text[] := '{}';
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the isolation level is %, and Locum needs read committed', current_setting('transaction_isolation')
      USING HINT = 'ALTER ROLE ... SET default_transaction_isolation = ''read committed''';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  IF locks IS NULL THEN
    PERFORM pg_advisory_xact_lock(space, 0);
  ELSE
    PERFORM pg_advisory_xact_lock_shared(space, 0);
  END IF;
  PERFORM 1 FROM @fence WHERE id = 1 AND lineage = f_lineage AND term = f_term AND nonce = f_nonce;
  IF NOT FOUND THEN
    RETURN '{f}';
  END IF;
  IF locks IS NOT NULL THEN
    FOREACH h IN ARRAY locks LOOP PERFORM pg_advisory_xact_lock(space, h); END LOOP;
  END IF;
  IF cardinality(c_of) > 0 THEN
    SELECT coalesce(array_agg(f.i), '{}'), coalesce(array_agg(f.i || ':' || f.key), '{}') INTO refused, results FROM (
      SELECT DISTINCT ON (c.i) c.i, c.key FROM unnest(c_of, c_keys, c_values) AS c(i, key, value)
        LEFT JOIN @entries e ON e.key = c.key WHERE e.value IS DISTINCT FROM c.value) f;
  END IF;
  IF cardinality(d_of) > 0 THEN
    DELETE FROM @entries e USING unnest(d_of, d_keys) AS d(i, key) WHERE e.key = d.key AND d.i <> ALL (refused);
  END IF;
  IF cardinality(p_of) = 1 AND refused = '{}' THEN
    INSERT INTO @entries VALUES (p_keys[1], p_values[1]) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value;
  ELSIF cardinality(p_of) > 0 THEN
    INSERT INTO @entries SELECT p.key, p.value FROM unnest(p_of, p_keys, p_values) AS p(i, key, value) WHERE p.i <> ALL (refused)
      ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value;
  END IF;
  RETURN results;
END $$;
`

// raiseFunction replaces the fence. It waits for a second at most: then the caller looks for who blocks it.
const raiseFunction = `
CREATE OR REPLACE FUNCTION @raise(from_lineage text, from_term bigint, from_nonce bytea, to_lineage text, to_term bigint, to_nonce bytea)
RETURNS boolean LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the isolation level is %, and Locum needs read committed', current_setting('transaction_isolation')
      USING HINT = 'ALTER ROLE ... SET default_transaction_isolation = ''read committed''';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  PERFORM pg_advisory_xact_lock('@fence'::regclass::oid::bigint::bit(32)::integer, 0);
  UPDATE @fence SET lineage = to_lineage, term = to_term, nonce = to_nonce
    WHERE id = 1 AND lineage = from_lineage AND term = from_term AND nonce = from_nonce AND term < to_term;
  RETURN FOUND;
END $$;
`

// lockFunctions are the calls on the lock. "clock" is the server process on whose clock "expires" is: times of two
// servers are never compared. seen_token and seen_beat name a grant that the caller has seen without a renewal for its TTL, on
// its own clock.
const lockFunctions = `
CREATE OR REPLACE FUNCTION @look(OUT holder text, OUT name text, OUT term bigint, OUT next text, OUT token bytea, OUT beat bigint,
  OUT ttl_us bigint, OUT comparable boolean, OUT left_us bigint)
LANGUAGE sql VOLATILE AS $$
  SELECT l.holder, l.name, l.term, l.next, l.token, l.beat, l.ttl_us, l.clock = pg_postmaster_start_time(),
    (extract(epoch FROM l.expires - clock_timestamp()) * 1000000)::bigint
  FROM @lock l WHERE l.id = 1
$$;
CREATE OR REPLACE FUNCTION @acquire(a_holder text, a_name text, a_token bytea, a_ttl_us bigint, above bigint, seen_token bytea, seen_beat bigint)
RETURNS bigint LANGUAGE plpgsql VOLATILE SET lock_timeout = '2s' AS $$
DECLARE t bigint;
BEGIN
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  PERFORM 1 FROM @lock WHERE id = 1 FOR UPDATE;
  UPDATE @lock l SET holder = a_holder, name = a_name, term = greatest(l.term, above) + 1, next = '', token = a_token, beat = 1,
      ttl_us = a_ttl_us, expires = clock_timestamp() + a_ttl_us * interval '1 microsecond', clock = pg_postmaster_start_time()
    WHERE l.id = 1 AND (l.holder = '' OR l.clock = pg_postmaster_start_time() AND l.expires <= clock_timestamp()
      OR l.token = seen_token AND l.beat = seen_beat)
    RETURNING l.term INTO t;
  IF t IS NOT NULL THEN
    PERFORM pg_notify('@channel', t::text);
  END IF;
  RETURN t;
END $$;
CREATE OR REPLACE FUNCTION @renew(a_token bytea, a_term bigint)
RETURNS bigint LANGUAGE plpgsql VOLATILE SET lock_timeout = '2s' AS $$
DECLARE us bigint;
BEGIN
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  PERFORM 1 FROM @lock WHERE id = 1 FOR UPDATE;
  UPDATE @lock l SET beat = l.beat + 1, clock = pg_postmaster_start_time(),
      expires = clock_timestamp() + l.ttl_us * interval '1 microsecond'
    WHERE l.id = 1 AND l.holder <> '' AND l.token = a_token AND l.term = a_term
      AND NOT (l.clock = pg_postmaster_start_time() AND l.expires <= clock_timestamp())
    RETURNING l.ttl_us INTO us;
  RETURN us;
END $$;
CREATE OR REPLACE FUNCTION @release(a_token bytea, a_term bigint, a_next text)
RETURNS boolean LANGUAGE plpgsql VOLATILE SET lock_timeout = '2s' AS $$
BEGIN
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  UPDATE @lock l SET holder = '', next = a_next, token = '', beat = l.beat + 1
    WHERE l.id = 1 AND l.holder <> '' AND l.token = a_token AND l.term = a_term
      AND NOT (l.clock = pg_postmaster_start_time() AND l.expires <= clock_timestamp());
  IF FOUND THEN
    PERFORM pg_notify('@channel', a_term::text);
    RETURN true;
  END IF;
  RETURN false;
END $$;
`

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
func (s schema) script() string {
	return s.expand(strings.TrimSpace(tables + commitFunction + raiseFunction + lockFunctions))
}

// present finds out whether everything is there already.
const present = `SELECT to_regclass('@entries') IS NOT NULL AND to_regclass('@fence') IS NOT NULL AND to_regclass('@lock') IS NOT NULL
  AND to_regproc('@commit') IS NOT NULL AND to_regproc('@raise') IS NOT NULL AND to_regproc('@acquire') IS NOT NULL
  AND to_regproc('@renew') IS NOT NULL AND to_regproc('@release') IS NOT NULL AND to_regproc('@look') IS NOT NULL`

// permitted finds out whether the role may do everything that the functions do.
const permitted = `SELECT has_schema_privilege('@schema', 'USAGE')
  AND has_table_privilege('@entries', 'SELECT') AND has_table_privilege('@entries', 'INSERT')
  AND has_table_privilege('@entries', 'UPDATE') AND has_table_privilege('@entries', 'DELETE')
  AND has_table_privilege('@fence', 'SELECT') AND has_table_privilege('@fence', 'UPDATE')
  AND has_table_privilege('@lock', 'SELECT') AND has_table_privilege('@lock', 'UPDATE')
  AND has_function_privilege(to_regproc('@commit'), 'EXECUTE') AND has_function_privilege(to_regproc('@raise'), 'EXECUTE')
  AND has_function_privilege(to_regproc('@acquire'), 'EXECUTE') AND has_function_privilege(to_regproc('@renew'), 'EXECUTE')
  AND has_function_privilege(to_regproc('@release'), 'EXECUTE') AND has_function_privilege(to_regproc('@look'), 'EXECUTE')`

// grants is what an administrator runs for a role that lacks rights on what is there.
func (s schema) grants(role string) string {
	role = quote(role)
	return s.expand(fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;\nGRANT SELECT, INSERT, UPDATE, DELETE ON @entries, @fence, @lock TO %s;\n"+
		"GRANT EXECUTE ON FUNCTION @commit, @raise, @acquire, @renew, @release, @look TO %s;", s.name, role, role, role))
}

func quote(identifier string) string { return `"` + strings.ReplaceAll(identifier, `"`, `""`) + `"` }

// setUp sees to it that the tables and functions are there, and that the role may use them.
func (s *Store) setUp(ctx context.Context, conn *pgxpool.Conn) error {
	there, err := ask(ctx, conn, s.schema.expand(present))
	if err != nil {
		return s.failed(ctx, err, false)
	}
	if !there {
		if err := s.create(ctx, conn); err != nil {
			return err
		}
	}
	allowed, err := ask(ctx, conn, strings.ReplaceAll(s.schema.expand(permitted), "@schema", s.schema.name))
	if err != nil {
		return s.failed(ctx, err, false)
	}
	if !allowed {
		return fmt.Errorf("postgresql: the role %q lacks rights on the tables or functions; run as an administrator:\n%s", s.user, s.schema.grants(s.user))
	}
	return nil
}

// ask runs a query for one truth. It is sent as text, so that it works through every pooler.
func ask(ctx context.Context, conn *pgxpool.Conn, sql string) (bool, error) {
	var yes bool
	err := conn.QueryRow(ctx, sql, simple).Scan(&yes)
	return yes, err
}

// create runs the script, in one transaction. Several nodes may do so at once: one lock has them go one after the other.
func (s *Store) create(ctx context.Context, conn *pgxpool.Conn) error {
	sql := "SELECT pg_advisory_xact_lock(7235417, hashtext('" + s.schema.entries + "'));\n"
	there, err := ask(ctx, conn, fmt.Sprintf("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = '%s')", s.schema.name))
	if err != nil {
		return s.failed(ctx, err, false)
	}
	makes := ""
	if !there {
		makes = "CREATE SCHEMA IF NOT EXISTS " + s.schema.name + ";\n"
	}
	_, err = conn.Conn().PgConn().Exec(ctx, sql+makes+s.schema.script()).ReadAll()
	if isCode(err, codeNoRight) {
		return fmt.Errorf("postgresql: the tables are not there, and the role %q must not make them (%w); grant it that:\n%s\nor run as an administrator:\n%s%s\n%s",
			s.user, plain(err), s.schema.right(there), makes, s.schema.script(), s.schema.grants(s.user))
	}
	if err != nil {
		return fmt.Errorf("make the tables: %w", s.failed(ctx, err, false))
	}
	return nil
}

// right is the least right with which a role can make the tables.
func (s schema) right(there bool) string {
	if there {
		return fmt.Sprintf("GRANT USAGE, CREATE ON SCHEMA %s TO …;", s.name)
	}
	return "GRANT CREATE ON DATABASE … TO …;"
}

// isReadOnly reports whether the server takes no writes: a replica, or a primary that was.
func isReadOnly(err error) bool { return isCode(err, codeReadOnly) }
