import { createSessions } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import cloudflareKv, { type KvNamespace } from '@coatcheck/session-cloudflare-kv/runtime';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { kvStore } from '../../src/store.ts';

const { env } = process.getBuiltinModule('cloudflare:workers') as { env: { SESSION: KvNamespace } };

describe('the store', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] }));
  afterEach(() => void vi.useRealTimers());
  testStore({ it, createStore: () => kvStore(env.SESSION, 5000), passTime: (ms) => vi.advanceTimersByTime(ms) });
});

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => cloudflareKv(config) });
});

it('a session can be read in a later request', async () => {
  const sessions = createSessions({ driver: cloudflareKv() });
  const visit = sessions.open(new Request('http://localhost/'));
  visit.set('cart', new Map([['hat', 2]]));
  const cookie = (await visit.commit())!.split(';')[0]!;
  const next = sessions.open(new Request('http://localhost/', { headers: { cookie } }));
  expect(await next.get('cart')).toEqual(new Map([['hat', 2]]));
});
