import { globSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { createSessions, describeSession, isCoatcheckDriver, type Session } from '@coatcheck/session-core';
import type { SharedOptions, SessionDriver } from '@coatcheck/session-core/driver';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { flatten, hydrate, type Entry } from './fuzz/damage.ts';
import { backends, type Backend, type Kind, type Recording, type Stored } from './stored-records/backends.ts';
import { values } from './stored-records/values.ts';

// Every later version reads what version 0.x stored. `stored-records/record.ts` says how the records of a version are recorded.

const folder = new URL('stored-records/', import.meta.url);
const versions = globSync('v*.json', { cwd: folder })
  .map((file) => Number(/\d+/.exec(file)))
  .sort((one, other) => one - other);

function recordingOf(version: number): Recording {
  return JSON.parse(readFileSync(new URL(`v${version}.json`, folder), 'utf8')) as Recording;
}

type Expected = ReadonlyMap<string, Entry>;

const open = (driver: SessionDriver, id: string): Session => createSessions({ driver }).open(`astro-session=${id}`);

/** The session that Astro parses from the result of the driver. */
async function asAstro(driver: SessionDriver, id: string): Promise<Expected> {
  const handed = await driver.getItem(id);
  const entries = hydrate(typeof handed === 'string' ? JSON.parse(handed) : handed);
  return new Map([...entries].map(([key, { data, expires }]) => [key, { data, expires }]));
}

async function isSession(backend: Backend, id: string, config: SharedOptions, expected: Expected): Promise<void> {
  expect(new Map(await open(backend.driver(config), id).entries())).toStrictEqual(
    new Map([...expected].map(([key, { data }]) => [key, data])),
  );
  expect(await asAstro(backend.driver(config), id)).toStrictEqual(expected);
}

/** Changes a session with this version. The session keeps its id and all other values. */
async function isSessionAfterAChange(
  backend: Backend,
  id: string,
  config: SharedOptions,
  before: Expected,
): Promise<void> {
  const session = open(backend.driver(config), id);
  session.set('user', 'Grace');
  // No cookie is sent, because the session keeps its id.
  expect(await session.commit()).toBeUndefined();
  const after = new Map(before).set('user', { data: 'Grace', expires: undefined });
  await isSession(backend, id, config, after);
}

// The data of session-memory ends with the process. A new backend is listed here until its stored form is recorded.
const unrecorded = new Set(['session-memory']);

test('every other backend is recorded', () => {
  const manifests = globSync('session-*/package.json', { cwd: new URL('../packages/', import.meta.url) });
  const keeping = manifests.map(dirname).filter((name) => !unrecorded.has(name));
  expect(Object.keys(backends)).toEqual(keeping.sort());
  expect(Object.keys(recordingOf(versions.at(-1)!).backends)).toEqual(keeping);
});

describe.each(versions)('as recorded in v%i.json', (version) => {
  const { secrets, rotated, ids, keys, backends: recorded } = recordingOf(version);
  const [first, next] = secrets;
  const expected: Expected = new Map(keys.map((key) => [key, values.get(key)!]));

  describe.each(Object.entries(recorded))('in %s', (name, records) => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await backends[name]!();
      await backend.load(Object.values(records).flat());
    });
    afterAll(() => backend?.[Symbol.asyncDispose]());

    const checks: Record<Kind, () => Promise<void>> = {
      async plain() {
        await isSession(backend, ids.plain, { ttl: false }, expected);
        const [one, other] = (await open(backend.driver(), ids.plain).get('the same twice')) as object[];
        expect(one).toBe(other);
        await isSessionAfterAChange(backend, ids.plain, { ttl: false }, expected);
        // Sessions contain it since version 4. Changing an older one does not make it a new one.
        const driver = backend.driver({ ttl: false });
        if (!isCoatcheckDriver(driver)) return;
        expect(await describeSession(driver, ids.plain)).toMatchObject({
          created: version < 4 ? null : expect.any(Date),
        });
      },

      async encrypted() {
        const both = { ttl: false, secrets: [next, first] } satisfies SharedOptions;
        // Each secret has encrypted some of the data. Reading with both encrypts all of it with the first one.
        expect(await open(backend.driver({ secrets: [next] }), ids.encrypted).keys()).toEqual([rotated]);
        const others = keys.filter((key) => key !== rotated);
        const openedByFirst = await open(backend.driver({ secrets: [first] }), ids.encrypted).keys();
        expect(new Set(openedByFirst)).toEqual(new Set(others));
        await isSession(backend, ids.encrypted, both, expected);
        await isSessionAfterAChange(backend, ids.encrypted, both, expected);
      },

      async empty() {
        await isSession(backend, ids.empty, {}, new Map());
        await isSessionAfterAChange(backend, ids.empty, {}, new Map());
      },

      async removed() {
        const stored = await contentsOf(backend);
        expect(await backend.driver().getItem(ids.removed)).toBeNull();
        // A request that knows the id but has not read the session does not restore it, in Astro or in any other server.
        await backend.driver().setItem(ids.removed, flatten(new Map([['user', { data: 'Ada' }]])));
        const session = open(backend.driver(), ids.removed);
        session.set('user', 'Ada');
        expect(await session.commit()).toBeUndefined();
        expect(await backend.driver().getItem(ids.removed)).toBeNull();
        expect(await contentsOf(backend)).toEqual(stored);
      },
    };

    const isAsItWas = (kind: Kind): Promise<void> => checks[kind]();

    test.each(Object.keys(records) as Kind[])('a session that is %s', (kind) => isAsItWas(kind));
  });
});

/** Everything that is stored, without the remaining lifetimes. */
async function contentsOf(backend: Backend): Promise<Stored[]> {
  return (await backend.dump()).map(({ expiresIn: _passes, ...contents }) => contents);
}
