import type { SessionDriver } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import upstash from '@coatcheck/session-upstash/runtime';
import unstorageUpstash from 'unstorage/drivers/upstash';
import { afterAll, describe, it } from 'vitest';
import { redisUrl } from '../../../test/support/redis-server.ts';
import { startUpstashBridge } from '../../../test/support/upstash-bridge.ts';
import { openStore, timeLeftAt } from './support/store.ts';

const bridge = await startUpstashBridge(await redisUrl());
afterAll(() => bridge[Symbol.asyncDispose]());

describe('the store', () => {
  testStore({ it, createStore: () => openStore(bridge), timeLeft: timeLeftAt(bridge), slackMs: 200 });
});

describe('the driver', () => {
  testDriver({
    it,
    createDriver: (config) => upstash({ ...config, url: bridge.url, token: bridge.token }),
    formerDriver: () => unstorageUpstash({ url: bridge.url, token: bridge.token }) as SessionDriver,
  });
});
