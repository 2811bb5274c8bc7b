import type { SessionDriver } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import redis from '@coatcheck/session-redis/runtime';
import unstorageRedis from 'unstorage/drivers/redis';
import { afterAll, describe, it } from 'vitest';
import { redisUrl } from '../../../test/support/redis-server.ts';
import { openInspector, openStore, timeLeftIn } from './support/store.ts';

const url = await redisUrl();
const inspector = openInspector(url);
const former = unstorageRedis({ url });
afterAll(() => {
  inspector.disconnect();
  return former.dispose?.();
});

describe('the store', () => {
  testStore({ it, createStore: () => openStore({ url }), timeLeft: timeLeftIn(inspector), slackMs: 200 });
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
    formerDriver: () => former as SessionDriver,
  });
});
