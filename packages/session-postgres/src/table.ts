import { DEFAULT_TABLE, quoteTable } from '@coatcheck/session-core/sql';

// The number in the name of a function changes when the function does, so that the versions of a rolling deployment do not disturb each
// other.
export const patchFunction = (table: string): string => quoteTable(table, '_patch_2');
export const destroyFunction = (table: string): string => quoteTable(table, '_destroy_1');
const expiryFunction = (table: string): string => quoteTable(table, '_expiry_1');

/** The current time by the database's clock, in epoch milliseconds. `now()` would stand still while a statement waits for a lock. */
export const CLOCK = 'floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint';

/** A record that never expires has this timestamp, the latest that a JavaScript Date can represent. */
const NEVER = '8640000000000000';

/**
 * The SQL statements that create the table of the sessions and its functions, for your own migrations. They can be run again.
 *
 * A change runs as a function. It takes a lock on the key, reads, decides and writes, in one round trip. Without the lock, a statement would
 * decide on a state from before it waited for another one.
 *
 * @param table the option `table` of the driver.
 */
export function createTableSql(table: string = DEFAULT_TABLE): string {
  const name = quoteTable(table);
  const expiry = expiryFunction(table);
  return `CREATE TABLE IF NOT EXISTS ${name} (
  key text PRIMARY KEY,
  until bigint NOT NULL,   -- when the record expires, in epoch milliseconds: with its longest-lived field, or at its idle limit
  expires bigint NOT NULL, -- when its longest-lived field expires
  fields jsonb,            -- NULL for a tombstone, which rejects writes to a destroyed session
  bucket bigint NOT NULL GENERATED ALWAYS AS (until / 600000) STORED -- 10 minutes; an index on until would be written with every read
) WITH (fillfactor = 70);
ALTER TABLE ${name} ALTER COLUMN fields SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS ${indexName(table)} ON ${name} (bucket);

-- The expiry of a field, which is the number before its first colon.
CREATE OR REPLACE FUNCTION ${expiry}(field text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN strpos(field, ':') BETWEEN 2 AND 17 AND translate(split_part(field, ':', 1), '0123456789', '') = '' THEN split_part(field, ':', 1)::bigint
    WHEN left(field, 1) = '-' AND field ~ '^-[0-9]{1,16}:' THEN split_part(field, ':', 1)::bigint
  END
$$;

CREATE OR REPLACE FUNCTION ${patchFunction(table)}(_key text, _change jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  _writer bigint := _change ->> 'now';
  _clock bigint;
  _fields jsonb;
  _live boolean;
  _expires bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(_key, 0));
  _clock := ${CLOCK};
  SELECT s.fields INTO _fields FROM ${name} s WHERE s.key = _key AND s.until > _clock;
  _live := FOUND;
  IF _live AND _fields IS NULL THEN RETURN 'destroyed'; END IF;
  IF (_change ->> 'mustExist')::boolean AND NOT _live THEN RETURN 'missing'; END IF;
  IF (_change ->> 'mustBeNew')::boolean AND _live THEN RETURN 'conflict'; END IF;
  _fields := coalesce(_fields, '{}');
  IF EXISTS (SELECT FROM jsonb_each_text(_change -> 'expect') e WHERE _fields ->> e.key IS DISTINCT FROM e.value) THEN RETURN 'conflict'; END IF;

  _fields := coalesce(_change -> 'ifAbsent', '{}')
    || (_fields
      - ARRAY(SELECT jsonb_array_elements_text(_change -> 'unset'))
      - ARRAY(SELECT p FROM jsonb_array_elements_text(_change -> 'purge') p WHERE ${expiry}(_fields ->> p) < _writer))
    || (_change -> 'set');
  _expires := least(${NEVER}, _clock + coalesce(
    (SELECT max(coalesce(${expiry}(f.value) - _writer, (_change ->> 'defaultTtlMs')::bigint, ${NEVER})) FROM jsonb_each_text(_fields) f WHERE left(f.value, 2) <> '-:'),
    (_change ->> 'lifetimeMs')::bigint, ${NEVER}));

  INSERT INTO ${name} AS s (key, until, expires, fields)
    VALUES (_key, least(_expires, _clock + coalesce((_change ->> 'idleMs')::bigint, ${NEVER})), _expires, _fields)
    ON CONFLICT (key) DO UPDATE SET until = excluded.until, expires = excluded.expires, fields = excluded.fields;
  ${unlessLate("(_change ->> 'timeoutMs')::bigint")}
  RETURN 'applied';
END $$;

CREATE OR REPLACE FUNCTION ${destroyFunction(table)}(_key text, _tombstone_ms bigint, _timeout_ms bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  _clock bigint;
  _fields jsonb;
  _until bigint;
  _live boolean;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(_key, 0));
  _clock := ${CLOCK};
  SELECT s.fields, s.until INTO _fields, _until FROM ${name} s WHERE s.key = _key AND s.until > _clock;
  _live := FOUND;
  _until := greatest(_clock + _tombstone_ms, CASE WHEN _live AND _fields IS NULL THEN _until END);
  INSERT INTO ${name} AS s (key, until, expires) VALUES (_key, _until, _until)
    ON CONFLICT (key) DO UPDATE SET until = excluded.until, expires = excluded.expires, fields = NULL;
  ${unlessLate('_timeout_ms')}
  RETURN CASE WHEN _live THEN coalesce(_fields::text, 'destroyed') END;
END $$;
`;
}

/**
 * Fails if the statement has waited for a lock until after its deadline: the caller was told that the write failed, and the request to cancel
 * it may be lost. A client of the app sends no such request.
 */
function unlessLate(timeoutMs: string): string {
  return `IF clock_timestamp() > statement_timestamp() + ${timeoutMs} * interval '1 ms' THEN
    RAISE query_canceled USING MESSAGE = 'the caller no longer waits';
  END IF;`;
}

/** The name of an index has no schema: it is in that of its table. */
function indexName(table: string): string {
  return quoteTable(table.slice(table.indexOf('.') + 1), '_bucket');
}
