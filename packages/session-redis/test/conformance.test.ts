import { testDriver, testStore } from '@coatcheck/session-core/testing';
import redis from '@coatcheck/session-redis/runtime';
import { describe, it } from 'vitest';
import { redisUrl } from '../../../test/support/redis-server.ts';
import { openStore } from './support/store.ts';

const url = await redisUrl();

describe('the store', () => {
  testStore({ it, createStore: () => openStore({ url }), slackMs: 200 });
});

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => redis({ ...config, url }) });
});
