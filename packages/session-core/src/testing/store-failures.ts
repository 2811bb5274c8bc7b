import { isTrue, rejects, same } from './assert.ts';
import { call, change, fields, HOUR, MINUTE, type StoreSuite, type StoreTests } from './store-suite.ts';
import { isSessionDriverError } from '../contract/errors.ts';

import type { SessionStore, StoreCall } from '../contract/store.ts';

/** Tests of failures: an aborted call has no effect, and a failure is an error. */
export function testFailures({ test }: StoreTests, { outage }: Pick<StoreSuite, 'outage'>): void {
  test(
    'a call whose signal has aborted stores nothing and rejects',
    'Pass `signal` to the client, and call `signal.throwIfAborted()` before each step that sends something: the caller was told that the call ' +
      'failed.',
    async ({ store, key }) => {
      const aborted = (): StoreCall => ({ signal: AbortSignal.abort() });
      const held = fields({ a: ':1' });
      await rejects(store.patch(key, change({ set: held }), aborted()), 'a change');
      same(await store.read(key, call()), null);
      await store.patch(key, change({ set: held, idleMs: HOUR }), call());
      await rejects(store.patch(key, change({ unset: ['a'] }), aborted()), 'a change');
      await rejects(store.read(key, { ...aborted(), extendIdleMs: MINUTE }), 'a touch');
      await rejects(store.destroy(key, HOUR, aborted()), 'a removal');
      same(await store.read(key, call()), held);
      // Refused calls must not use up resources such as connections or transactions.
      for (let attempt = 0; attempt < 30; attempt++) {
        await rejects(store.patch(key, change({ unset: ['a'] }), aborted()), 'a change');
        same(await store.patch(key, change({ mustBeNew: true }), call()), 'conflict');
      }
      same(await store.patch(key, change({ mustExist: true, set: fields({ b: ':1' }) }), call()), 'applied');
    },
  );

  if (!outage) return;

  test(
    'an unreachable backend causes an `unavailable` error, never null',
    "Throw `createError('session-thing', 'unavailable', ...)` if the backend cannot be reached. A null would sign the user out, and " +
      '`applied` would lose their changes.',
    async ({ store, key }) => {
      const held = fields({ a: ':1' });
      await store.patch(key, change({ set: held }), call());
      same(await store.read(key, call()), held);
      const restore = await outage();
      try {
        for (const [what, operation] of operations(store, key)) {
          const error = await rejects(operation({ signal: AbortSignal.timeout(OUTAGE_TIMEOUT_MS) }), what);
          const code = isSessionDriverError(error) ? error.code : String(error);
          isTrue(code === 'unavailable', `${what}: expected an error with the code unavailable, got ${code}`);
        }
      } finally {
        await restore();
      }
      same(await store.read(key, call()), held, 'after the outage');
    },
  );
}

/** The timeout of a call during an outage, in milliseconds. A store that waits for its backend waits this long. */
const OUTAGE_TIMEOUT_MS = 300;

function operations(store: SessionStore, key: string): [string, (call: StoreCall) => Promise<unknown>][] {
  return [
    ['a read', (it) => store.read(key, it)],
    ['a change', (it) => store.patch(key, change({ set: fields({ a: ':2' }) }), it)],
    ['a removal', (it) => store.destroy(key, HOUR, it)],
    ...(store.atomic ? [['a touch', (it: StoreCall) => store.read(key, { ...it, extendIdleMs: HOUR })] as const] : []),
    ...(store.sweep ? [['a sweep', (it: StoreCall) => store.sweep!(1000, it)] as const] : []),
  ] as [string, (call: StoreCall) => Promise<unknown>][];
}
