import { testDriver, testStore } from '@coatcheck/session-core/testing';
import durableObjects, { type SessionNamespace } from '@coatcheck/session-durable-objects/runtime';
import type { SessionDriver } from '@coatcheck/session-core';
import cloudflareKVBinding from 'unstorage/drivers/cloudflare-kv-binding';
import { durableObjectsStore } from '../../src/store.ts';

export { InspectedSession } from './inspected-session.ts';

interface Env {
  SESSIONS: SessionNamespace;
  SESSION: { list(): Promise<{ keys: { name: string }[] }>; get(key: string): Promise<string | null> };
}

/** Remembers the keys, because a namespace cannot list its objects. */
function remembering(namespace: SessionNamespace, keys: Set<string>): SessionNamespace {
  return {
    idFromName: (name) => (keys.add(name), namespace.idFromName(name)),
    get: (id, options) => namespace.get(id, options),
    jurisdiction: () => namespace,
  };
}

/** A clock that moves only when a test advances it. The objects run in the same isolate, so it is theirs as well. */
let now = 0;
const passTime = (ms: number): void => void (now += ms);

// Runs the conformance suite in the runtime of the driver. One request runs one test.
export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const name = new URL(request.url).searchParams.get('name')!;
    const tests = new Map<string, () => Promise<void>>();
    const it = (title: string, run: () => Promise<void>) => tests.set(title, run);
    const keys = new Set<string>();
    const client = remembering(env.SESSIONS, keys);

    const dump = async (): Promise<string> => {
      const objects = [...keys].map(async (key) => {
        const { stored } = await env.SESSIONS.get(env.SESSIONS.idFromName(key)).contents();
        return stored === undefined ? '' : `${key} ${JSON.stringify(stored)}`;
      });
      const legacy = (await env.SESSION.list()).keys.map((key) => env.SESSION.get(key.name));
      return (await Promise.all([...objects, ...legacy])).join('\n');
    };

    testStore({
      it,
      createStore: () =>
        durableObjectsStore(env.SESSIONS, { timeoutMs: 5000, findLegacyNamespace: async () => undefined }),
      passTime,
    });
    testDriver({
      it,
      createDriver: (config) => durableObjects({ client, ...config }),
      dump,
      legacyDriver: () => cloudflareKVBinding({ binding: env.SESSION as never }) as SessionDriver,
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
