import { testDriver, testStore } from '@coatcheck/session-core/testing';
import cloudflareKv, { type KvNamespace } from '@coatcheck/session-cloudflare-kv/runtime';
import { kvStore } from '../../src/store.ts';

// The conformance suite, run where the driver runs. One request runs one test.
export default {
  async fetch(request: Request, env: { SESSION: KvNamespace }): Promise<Response> {
    const name = new URL(request.url).searchParams.get('name')!;
    const tests = new Map<string, () => Promise<void>>();
    const it = (title: string, run: () => Promise<void>) => tests.set(title, run);
    testStore({ it, createStore: () => kvStore(env.SESSION, 5000) });
    testDriver({ it, createDriver: (config) => cloudflareKv(config) });
    try {
      await tests.get(name)!();
      return new Response('passed');
    } catch (error) {
      return new Response((error as Error).stack, { status: 500 });
    }
  },
};
