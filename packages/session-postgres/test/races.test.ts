import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Change, DriverStore } from '@coatcheck/session-core/driver';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { beforeEach, describe, expect, it } from 'vitest';
import { newDatabase, openStore, sql } from './support/store.ts';

// Under READ COMMITTED, a statement keeps its snapshot while it waits for a lock. So each condition of a change is raced with each other, on
// many connections.

const CONNECTIONS = 32;
const ROUNDS = 6;

const fields = (name: string): Map<string, string> => new Map([[name, ':1']]);
const repeat = <Result>(count: number, work: (index: number) => Result): Result[] =>
  Array.from({ length: count }, (_, index) => work(index));
const countOf = (results: unknown[], wanted: unknown): number => results.filter((result) => result === wanted).length;

describe.each(['read committed', 'repeatable read', 'serializable'])('under %s', (isolation) => {
  let url: string;
  let store: DriverStore;

  beforeEach(async () => {
    url = await newDatabase();
    await sql(
      url,
      `ALTER DATABASE ${new URL(url).pathname.slice(1)} SET default_transaction_isolation = '${isolation}'`,
    );
    store = await openStore({ url, maxConnections: CONNECTIONS });
    // Opens the connections.
    await Promise.all(repeat(CONNECTIONS, () => store.read('none', call())));
  });

  const patch = (key: string, parts: Partial<Change>) => store.patch(key, change(parts), call());
  const inRounds = async (work: (key: string) => Promise<void>): Promise<void> => {
    for (let round = 0; round < ROUNDS; round++) await work(newKey());
  };

  it('of writers that expect the same value, one succeeds', () =>
    inRounds(async (key) => {
      await patch(key, { set: new Map([['count', ':0']]) });
      const results = await Promise.all(
        repeat(CONNECTIONS, (index) =>
          patch(key, { expect: new Map([['count', ':0']]), set: new Map([['count', `:${index + 1}`]]) }),
        ),
      );
      expect(countOf(results, 'applied')).toBe(1);
      expect(countOf(results, 'conflict')).toBe(CONNECTIONS - 1);
      expect(await store.read(key, call())).toEqual(new Map([['count', `:${results.indexOf('applied') + 1}`]]));
    }));

  it('of writers that expect a field to be missing, one succeeds, with and without a record', () =>
    inRounds(async (key) => {
      if (Math.random() < 0.5) await patch(key, { set: fields('other') });
      const results = await Promise.all(
        repeat(CONNECTIONS, () => patch(key, { expect: new Map([['lock', null]]), set: fields('lock') })),
      );
      expect(countOf(results, 'applied')).toBe(1);
    }));

  it('of writers that need a new record, one succeeds, also after a record that has expired', () =>
    inRounds(async (key) => {
      if (Math.random() < 0.5) {
        await patch(key, { set: fields('old'), lifetimeMs: 1, defaultTtlMs: 1 });
        await expect.poll(() => store.read(key, call())).toBeNull();
      }
      const results = await Promise.all(
        repeat(CONNECTIONS, (index) => patch(key, { mustBeNew: true, set: fields(`writer${index}`) })),
      );
      expect(countOf(results, 'applied')).toBe(1);
      expect(await store.read(key, call())).toEqual(fields(`writer${results.indexOf('applied')}`));
    }));

  it('a record that must exist is not created while another one is destroyed', () =>
    inRounds(async (key) => {
      await patch(key, { set: fields('first') });
      const [destroyed, ...results] = await Promise.all([
        store.destroy(key, 60_000, call()),
        ...repeat(CONNECTIONS - 1, (index) => patch(key, { mustExist: true, set: fields(`writer${index}`) })),
      ]);
      const applied = results.flatMap((result, index) => (result === 'applied' ? [`writer${index}`] : []));
      expect(new Set((destroyed as Map<string, string>).keys())).toEqual(new Set(['first', ...applied]));
      expect(countOf(results, 'destroyed')).toBe(results.length - applied.length);
      expect(await store.read(key, call())).toBeNull();
    }));

  it('a key that nobody has written gets either the tombstone first or the record first', () =>
    inRounds(async (key) => {
      const [destroyed, ...results] = await Promise.all([
        store.destroy(key, 60_000, call()),
        ...repeat(CONNECTIONS - 1, (index) =>
          patch(key, { mustBeNew: index % 2 === 0, set: fields(`writer${index}`) }),
        ),
      ]);
      const applied = results.flatMap((result, index) => (result === 'applied' ? [`writer${index}`] : []));
      if (applied.length === 0) expect(destroyed).toBeNull();
      else expect(new Set((destroyed as Map<string, string>).keys())).toEqual(new Set(applied));
      expect(await store.read(key, call())).toBeNull();
    }));

  it('touches and a sweep change nothing about that', () =>
    inRounds(async (key) => {
      await patch(key, { set: fields('first'), idleMs: 60_000 });
      const results = await Promise.all(
        repeat(CONNECTIONS, async (index) => {
          if (index % 4 === 1) return store.read(key, { ...call(), extendIdleMs: 60_000 });
          if (index % 4 === 2) return store.sweep!(100, call());
          return patch(key, { mustExist: true, set: fields(`writer${index}`), idleMs: 60_000 });
        }),
      );
      const written = results.flatMap((result, index) => (index % 4 === 0 || index % 4 === 3 ? [[index, result]] : []));
      expect(written.map(([, result]) => result)).toEqual(written.map(() => 'applied'));
      expect(new Set((await store.read(key, call()))!.keys())).toEqual(
        new Set(['first', ...written.map(([index]) => `writer${index as number}`)]),
      );
    }));
});

it('two processes with 64 concurrent writers each lose no update', async () => {
  const url = await newDatabase();
  const store = await openStore({ url });
  const key = newKey();
  await store.patch(key, change({ set: fields('first') }), call());
  const run = promisify(execFile);
  const script = fileURLToPath(new URL('support/writer.ts', import.meta.url));
  const names = [0, 1].map((writer) => repeat(64, (index) => `writer${writer}-${index}`));
  await Promise.all(names.map((some) => run(process.execPath, [script, url, key, ...some])));
  expect(new Set((await store.read(key, call()))!.keys())).toEqual(new Set(['first', ...names.flat()]));
});
