// A process that writes fields of one session at once: node writer.ts <url> <key> <names...>
import { call, change } from '@coatcheck/test-support/stores';
import { openStore } from '../../src/store.ts';

const [url, key, ...names] = process.argv.slice(2);
// The connections do not keep the process alive. In an app, the deadline of an operation does.
const alive = setInterval(() => undefined, 1000);
const store = await openStore({ url, maxConnections: 32 }, { env: () => undefined, timeoutMs: 60_000 });
await Promise.all(
  names.map((name) => store.patch(key!, change({ mustExist: true, set: new Map([[name, ':1']]) }), call())),
);
await store.close?.();
clearInterval(alive);
