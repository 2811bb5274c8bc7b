import type { SessionDriver } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import redis from '@coatcheck/session-redis/runtime';
import unstorageRedis from 'unstorage/drivers/redis';
import { afterAll, describe, it } from 'vitest';
import { outageOf, startProxy } from '@coatcheck/test-support/fault-proxy';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { openInspector, openStore, timeLeftIn } from './support/store.ts';

const url = await redisUrl();
const inspector = openInspector(url);
const proxy = await startProxy({ target: Number(new URL(url).port) });
const former = unstorageRedis({ url });
afterAll(() => {
  inspector.disconnect();
  void proxy[Symbol.asyncDispose]();
  return former.dispose?.();
});

describe('the store', () => {
  testStore({
    it,
    createStore: () => openStore({ host: '127.0.0.1', port: proxy.port }),
    timeLeft: timeLeftIn(inspector),
    slackMs: 200,
    outage: outageOf(proxy),
  });
});

describe('the driver', () => {
  testDriver({
    it,
    createDriver: (config) => redis({ ...config, url }),
    dump: async () => {
      const keys = await inspector.keys('*');
      const records = await Promise.all(keys.map((key) => inspector.dumpBuffer(key)));
      return [...keys, ...records.map((record) => record?.toString('latin1'))].join('\n');
    },
    legacyDriver: () => former as SessionDriver,
  });
});
