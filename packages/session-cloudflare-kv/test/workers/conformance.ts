import { testDriver, testStore } from '@coatcheck/session-core/testing';
import cloudflareKv, { type KvNamespace } from '@coatcheck/session-cloudflare-kv/runtime';
import type { SessionDriver } from '@coatcheck/session-core';
import cloudflareKVBinding from 'unstorage/drivers/cloudflare-kv-binding';
import { kvStore } from '../../src/store.ts';

type Namespace = KvNamespace & { list(): Promise<{ keys: { name: string }[] }> };

async function dump(kv: Namespace): Promise<string> {
  const { keys } = await kv.list();
  const values = await Promise.all(keys.map(({ name }) => kv.get(name)));
  return [...keys.map(({ name }) => name), ...values].join('\n');
}

/** A clock that moves only when a test advances it. */
let now = 0;
const passTime = (ms: number): void => void (now += ms);

// Runs the conformance suite in the runtime of the driver. One request runs one test.
export default {
  async fetch(request: Request, env: { SESSION: Namespace }): Promise<Response> {
    const name = new URL(request.url).searchParams.get('name')!;
    const tests = new Map<string, () => Promise<void>>();
    const it = (title: string, run: () => Promise<void>) => tests.set(title, run);
    testStore({ it, createStore: () => kvStore(env.SESSION, 5000), passTime });
    testDriver({
      it,
      createDriver: (config) => cloudflareKv(config),
      dump: () => dump(env.SESSION),
      legacyDriver: () => cloudflareKVBinding({ binding: env.SESSION }) as SessionDriver,
    });
    const realNow = Date.now;
    now = realNow();
    Date.now = () => now;
    try {
      await tests.get(name)!();
      return new Response('passed');
    } catch (error) {
      return new Response((error as Error).stack, { status: 500 });
    } finally {
      Date.now = realNow;
    }
  },
};
