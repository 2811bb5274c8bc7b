import { existsSync, writeFileSync } from 'node:fs';
import { mock } from 'node:test';
import { createSessions } from '@coatcheck/session-core';
import type { SharedOptions } from '@coatcheck/session-core/driver';
import { flatten } from '../fuzz/damage.ts';
import { backends, type Backend, type Kind, type Recording, type Stored } from './backends.ts';
import { FAR, values } from './values.ts';

// Writes down what every backend stores: `node test/stored-records/record.ts 2` makes `v2.json` of what the packages, as built, write.
// Run it once when a stored form changes, and `format` afterwards. What was recorded before is never written again: it stands for what
// sites have stored.

const [version = ''] = process.argv.slice(2);
if (!/^[1-9]\d*$/.test(version)) throw new Error('Say which version this is: node test/stored-records/record.ts 2');
const file = new URL(`v${version}.json`, import.meta.url);
if (existsSync(file)) throw new Error(`v${version}.json is there already, and stays as it is: take the next number.`);

const recording: Recording = {
  secrets: ['first-secret-of-the-shop-0123456789', 'next-secret-of-the-shop-9876543210'],
  rotated: 'visits',
  ids: {
    plain: '11111111-1111-4111-8111-111111111111',
    encrypted: '22222222-2222-4222-8222-222222222222',
    empty: '33333333-3333-4333-8333-333333333333',
    removed: '44444444-4444-4444-8444-444444444444',
  },
  keys: [...values.keys()],
  backends: {},
};
const { secrets, rotated, ids } = recording;
const [first, next] = secrets;

// Sessions do not expire. How long a tombstone lasts depends on how long an operation may take: at most, so that no test outlasts it.
const lasting = { ttl: false, timeout: 600_000 } satisfies SharedOptions;

/** In whole seconds, of which lifetimes are made without a rest. */
const now = (): number => Math.floor(Date.now() / 1000) * 1000;
const year2100 = (): number => FAR;

// A session without a key ends after a month, and a tombstone after minutes. Our code finds that moment in what is stored, and it must
// lie ahead when it is read again: so they are written in the year 2100.
const steps: Record<Kind, { at: () => number; write(backend: Backend): Promise<void> }> = {
  plain: {
    at: now,
    write: (backend) => writeSession(backend, ids.plain, lasting),
  },
  encrypted: {
    at: now,
    async write(backend) {
      await writeSession(backend, ids.encrypted, { ...lasting, secrets: [first] });
      await setValues(backend, ids.encrypted, { ...lasting, secrets: [next, first] }, [rotated]);
    },
  },
  empty: {
    at: year2100,
    write: (backend) => begin(backend, ids.empty, lasting),
  },
  removed: {
    at: year2100,
    async write(backend) {
      await begin(backend, ids.removed, lasting);
      await setValues(backend, ids.removed, lasting, ['user']);
      await backend.driver(lasting).removeItem(ids.removed);
    },
  },
};

/** Astro hands over whole sessions, under ids that it makes. */
async function begin(backend: Backend, id: string, config: SharedOptions): Promise<void> {
  await backend.driver(config).setItem(id, flatten(new Map()));
}

async function setValues(backend: Backend, id: string, config: SharedOptions, keys: readonly string[]): Promise<void> {
  const session = createSessions({ driver: backend.driver(config) }).open(`astro-session=${id}`);
  for (const key of keys) {
    const { data, expires } = values.get(key)!;
    session.set(key, data, expires === undefined ? {} : { ttl: (expires - Date.now()) / 1000 });
  }
  if ((await session.commit()) !== undefined) throw new Error(`The session ${id} was not kept under its id.`);
}

async function writeSession(backend: Backend, id: string, config: SharedOptions): Promise<void> {
  await begin(backend, id, config);
  await setValues(backend, id, config, recording.keys);
}

async function record(backend: Backend): Promise<Partial<Record<Kind, Stored[]>>> {
  const recorded: Partial<Record<Kind, Stored[]>> = {};
  const known = new Set<string>();
  for (const kind of backend.kinds) {
    // The clock stands still, so that two recordings differ in as little as possible.
    mock.timers.enable({ apis: ['Date'], now: steps[kind].at() });
    await steps[kind].write(backend);
    mock.timers.reset();
    recorded[kind] = (await backend.dump()).filter(({ key }) => !known.has(key));
    for (const { key } of recorded[kind]) known.add(key);
  }
  return recorded;
}

for (const [name, start] of Object.entries(backends)) {
  await using backend = await start();
  recording.backends[name] = await record(backend);
}
writeFileSync(file, `${JSON.stringify(recording, null, 2)}\n`, { flag: 'wx' });
console.log(`Recorded as v${version}.json`);
// Drivers keep their connections, and would look for their servers.
process.exit();
