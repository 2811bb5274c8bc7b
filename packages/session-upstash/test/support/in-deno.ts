// Runs the conformance suite in Deno. `deno.test.ts` starts it.
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import upstash from '@coatcheck/session-upstash/runtime';
import { openStore, timeLeftAt } from './store.ts';

const tests: { name: string; run(): Promise<void> }[] = [];
const it = (name: string, run: () => Promise<void>): unknown => tests.push({ name, run });
const { UPSTASH_REDIS_REST_URL: url = '', UPSTASH_REDIS_REST_TOKEN: token = '' } = process.env;

testStore({ it, createStore: () => openStore({ url, token }), timeLeft: timeLeftAt({ url, token }), slackMs: 200 });
testDriver({ it, createDriver: (config) => upstash(config) });

let failures = 0;
for (const { name, run } of tests) {
  await run().catch((error: unknown) => {
    failures++;
    console.log(`failed: ${name}`, error);
  });
}
console.log(`${tests.length - failures} passed, ${failures} failed, in ${navigator.userAgent}`);
