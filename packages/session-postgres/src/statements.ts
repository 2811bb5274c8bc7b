import type { Change, PatchResult } from '@coatcheck/session-core/driver';
import {
  packFields,
  packName,
  quoteTable,
  unpackDestroyed,
  unpackFields,
  type SqlStatements,
} from '@coatcheck/session-core/sql';
import type { Connection } from './connection.ts';
import { sqlState } from './errors.ts';
import { CLOCK, createTableSql, destroyFunction, patchFunction } from './table.ts';

/**
 * The statements of PostgreSQL. Each one is a transaction of its own, and needs nothing that PgBouncer does not have in any mode.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds.
 */
export function postgresStatements({ query, close }: Connection, table: string, timeoutMs: number): SqlStatements {
  const name = quoteTable(table);
  const IS_LIVE = `key = $1 AND until > ${CLOCK} AND fields IS NOT NULL`;
  const READ = `SELECT fields::text AS result FROM ${name} WHERE ${IS_LIVE}`;
  const TOUCH = `UPDATE ${name} SET until = least(expires, ${CLOCK} + $2::bigint) WHERE ${IS_LIVE} RETURNING fields::text AS result`;
  const PATCH = `SELECT ${patchFunction(table)}($1, $2::text::jsonb) AS result`;
  const DESTROY = `SELECT ${destroyFunction(table)}($1, $2::bigint, $3::bigint) AS result`;
  // The rows are locked while they are chosen, so that none of them is changed before it is removed. `now()`, because an index cannot serve
  // `clock_timestamp()`. Whole buckets, because most rows of the current one are live.
  const SWEEP = `WITH removed AS (DELETE FROM ${name} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM ${name} WHERE bucket < floor(extract(epoch FROM now()) * 1000 / 600000)::bigint ORDER BY bucket LIMIT $1::bigint FOR UPDATE SKIP LOCKED
  )) RETURNING 1) SELECT count(*)::text AS result FROM removed`;
  const LEGACY_EXISTS = `SELECT to_regclass('unstorage')::text AS result`;

  return {
    async read(key, call) {
      const { extendIdleMs } = call;
      const [text, values] = extendIdleMs === undefined ? [READ, [key]] : [TOUCH, [key, String(extendIdleMs)]];
      const packed = await query(text, values, { call, isRepeatable: true });
      return packed === null ? null : unpackFields(packed);
    },

    async patch(key, change, call) {
      return (await query(PATCH, [key, packChange(change, timeoutMs)], { call })) as PatchResult;
    },

    async destroy(key, tombstoneMs, call) {
      const contents = await query(DESTROY, [key, String(tombstoneMs), String(timeoutMs)], { call });
      return contents === null || contents === 'destroyed' ? contents : unpackDestroyed(contents);
    },

    // Larger steps write so much that requests wait for the disk.
    sweepLimit: 20,
    sweep: async (limit, call) => Number(await query(SWEEP, [String(limit)], { call, isRepeatable: true })),

    async createTable(call) {
      // One at a time, because `IF NOT EXISTS` fails if several connections create the same table. One statement, because Neon's client
      // sends no more than one.
      const locked = `DO $coatcheck$ BEGIN PERFORM pg_advisory_xact_lock(hashtextextended('coatcheck create table', 0)); ${createTableSql(table)} END $coatcheck$`;
      await query(locked, [], { call, isRepeatable: true });
    },
    isTableMissing: (error) => /^42(?:P01|883)$/.test(sqlState(error) ?? ''),

    // The table is that of unstorage's driver `db0`.
    async readLegacy(key, call) {
      const options = { call, isRepeatable: true };
      if ((await query(LEGACY_EXISTS, [], options)) === null) return undefined;
      return query('SELECT value AS result FROM unstorage WHERE key = $1', [key], options);
    },
    async removeLegacy(key, call) {
      await query('DELETE FROM unstorage WHERE key = $1', [key], { call, isRepeatable: true });
    },

    ...(close && { close }),
  };
}

/** The parameter of the function `patch`. What is undefined is left out. */
function packChange({ set, ifAbsent, unset, purge, expect, lifetimeMs, ...change }: Change, timeoutMs: number): string {
  const rest = JSON.stringify({
    ...change,
    timeoutMs,
    unset: unset.map(packName),
    purge: purge?.map(packName),
    expect: expect && Object.fromEntries([...expect].map(([name, value]) => [packName(name), value])),
    lifetimeMs: lifetimeMs === 'never' ? undefined : lifetimeMs,
  });
  const absent = ifAbsent ? `,"ifAbsent":${packFields(ifAbsent)}` : '';
  return `${rest.slice(0, -1)},"set":${packFields(set)}${absent}}`;
}
