import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createSessions } from '@coatcheck/session-core';
import { valueStore, type SessionStore, type SessionDriver } from '@coatcheck/session-core/driver';
import { testDriver, testStore, type It } from '@coatcheck/session-core/testing';
import { fromUnstorage } from '@coatcheck/session-unstorage';
import cloudflareKVBinding from 'unstorage/drivers/cloudflare-kv-binding';
import nullDriver from 'unstorage/drivers/null';
import type { Driver } from 'unstorage';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startKv } from '../../session-cloudflare-kv/test/support/kv.ts';
import { withFakeClock } from '@coatcheck/test-support/clock';
import { scopeOf } from '@coatcheck/test-support/scope';
import { unstorageBackend } from '../src/backend.ts';
import { makeDriver } from './support/make-driver.ts';
import { services } from './support/services.ts';

type Start = (onEnd: (cleanUp: () => unknown) => void) => Driver | Promise<Driver>;

const drivers: [string, Start][] = Object.entries(services).map(([name, start]) => [
  name,
  async (onEnd) => makeDriver[name]!(await start(onEnd)),
]);
// A binding cannot be passed in an environment variable. `test/unstorage.test.ts` tests this driver in a Worker.
drivers.push([
  'cloudflare-kv-binding',
  async (onEnd) => {
    const kv = await startKv('SESSION');
    onEnd(() => kv[Symbol.asyncDispose]());
    return cloudflareKVBinding({ binding: kv.namespaces['SESSION']! as never });
  },
]);

// The usual scope: values in memory, files, and a server.
describe.each(scopeOf(drivers, ['memory', 'fs-lite', 'redis']))('unstorage/drivers/%s', (name, start) => {
  const cleanUps: (() => unknown)[] = [];
  let driver: Driver;

  beforeAll(async () => {
    driver = await start((cleanUp) => cleanUps.push(cleanUp));
  });
  afterAll(async () => {
    await driver.dispose?.();
    for (const cleanUp of cleanUps) await cleanUp();
  });

  describe('the store', () => {
    // All tests share the driver, so no test may close it.
    const createStore = (): SessionStore => {
      const { close: _close, sweep, ...store } = valueStore(unstorageBackend(driver, 5000));
      // Vercel's cache cannot list keys, so a sweep finds none. It expires values by itself.
      return name === 'vercel-runtime-cache' ? store : { ...store, sweep: sweep! };
    };
    testStore({ it: name === 'deno-kv-node' ? upTo64KiB : it, createStore, ...withFakeClock() });
  });

  describe('the session driver', () => {
    testDriver({
      it,
      createDriver: (config) => fromUnstorage(driver, config),
      legacyDriver: () => driver as unknown as SessionDriver,
    });
  });
});

const runTest: It = it;
/** Deno KV refuses values of more than 64 KiB. */
const upTo64KiB: It = (name, run, timeoutMs) =>
  name.startsWith('a value of 100,000')
    ? runTest(`${name}, up to 64 KiB`, () => expect(run()).rejects.toThrow('ValueTooLong'), timeoutMs)
    : runTest(name, run, timeoutMs);

it(
  'unstorage/drivers/localstorage and session-storage pass on the Web Storage of Node',
  { timeout: 60_000 },
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'coatcheck-webstorage-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const script = fileURLToPath(new URL('support/webstorage.ts', import.meta.url));
    const flags = ['--experimental-webstorage', `--localstorage-file=${join(folder, 'storage')}`];
    const { stdout } = await promisify(execFile)(process.execPath, [...flags, script]);
    expect(stdout).toMatch(/^[1-9]\d+ passed, 0 failed\n$/);
  },
);

it('unstorage/drivers/null stores no sessions', async () => {
  const sessions = createSessions({ driver: fromUnstorage(nullDriver()) });
  const session = sessions.open('');
  session.set('user', 'ada');
  const cookie = (await session.commit())!.split(';')[0];
  expect(await sessions.open(cookie).get('user')).toBeUndefined();
});
