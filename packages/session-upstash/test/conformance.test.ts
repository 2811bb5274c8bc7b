import type { SessionDriver } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import upstash from '@coatcheck/session-upstash/runtime';
import unstorageUpstash from 'unstorage/drivers/upstash';
import { afterAll, describe, it } from 'vitest';
import { outageOf, startProxy } from '@coatcheck/test-support/fault-proxy';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { startUpstashBridge } from '@coatcheck/test-support/upstash-bridge';
import { openStore, timeLeftAt } from './support/store.ts';

const bridge = await startUpstashBridge(await redisUrl());
const proxy = await startProxy({ target: Number(new URL(bridge.url).port) });
afterAll(async () => {
  await proxy[Symbol.asyncDispose]();
  await bridge[Symbol.asyncDispose]();
});

describe('the store', () => {
  testStore({
    it,
    createStore: () => openStore({ url: `http://127.0.0.1:${proxy.port}`, token: bridge.token }),
    timeLeft: timeLeftAt(bridge),
    slackMs: 200,
    outage: outageOf(proxy),
  });
});

describe('the driver', () => {
  testDriver({
    it,
    createDriver: (config) => upstash({ ...config, url: bridge.url, token: bridge.token }),
    legacyDriver: () => unstorageUpstash({ url: bridge.url, token: bridge.token }) as SessionDriver,
  });
});
