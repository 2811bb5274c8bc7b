import { isTrue, rejects, same } from './assert.ts';
import { call, change, fields, HOUR, MINUTE, type StoreSuite, type StoreTests } from './store-suite.ts';
import { isSessionDriverError } from '../contract/errors.ts';

import type { SessionStore, StoreCall } from '../contract/store.ts';

/** What was refused is not done, and what could not be done is an error. */
export function testFailures({ test }: StoreTests, { outage }: Pick<StoreSuite, 'outage'>): void {
  test(
    'after its signal has aborted a call stores nothing, and rejects',
    'Hand `signal` to the client, and call `signal.throwIfAborted()` before each step that sends something: the caller was told that it failed.',
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
      // Nothing is used up by what was refused: no connection, no transaction.
      for (let attempt = 0; attempt < 30; attempt++) {
        await rejects(store.patch(key, change({ unset: ['a'] }), aborted()), 'a change');
        same(await store.patch(key, change({ mustBeNew: true }), call()), 'conflict');
      }
      same(await store.patch(key, change({ mustExist: true, set: fields({ b: ':1' }) }), call()), 'applied');
    },
  );

  if (!outage) return;

  test(
    'a backend that cannot be reached is an `unavailable` error, and never a null',
    "Throw `createError('session-thing', 'unavailable', ...)` where the backend cannot be reached. A null would sign the visitor out, and " +
      '`applied` would lose what they did.',
    async ({ store, key }) => {
      const held = fields({ a: ':1' });
      await store.patch(key, change({ set: held }), call());
      same(await store.read(key, call()), held);
      const restore = await outage();
      try {
        for (const [what, operation] of operations(store, key)) {
          const error = await rejects(operation({ signal: AbortSignal.timeout(PATIENCE_MS) }), what);
          const code = isSessionDriverError(error) ? error.code : String(error);
          isTrue(code === 'unavailable', `${what}: expected an error with the code unavailable, got ${code}`);
        }
      } finally {
        await restore();
      }
      same(await store.read(key, call()), held, 'when the backend is back');
    },
  );
}

/** A store that waits for its backend waits until the signal aborts. */
const PATIENCE_MS = 300;

function operations(store: SessionStore, key: string): [string, (call: StoreCall) => Promise<unknown>][] {
  return [
    ['a read', (it) => store.read(key, it)],
    ['a change', (it) => store.patch(key, change({ set: fields({ a: ':2' }) }), it)],
    ['a removal', (it) => store.destroy(key, HOUR, it)],
    ...(store.atomic ? [['a touch', (it: StoreCall) => store.read(key, { ...it, extendIdleMs: HOUR })] as const] : []),
    ...(store.sweep ? [['a sweep', (it: StoreCall) => store.sweep!(1000, it)] as const] : []),
  ] as [string, (call: StoreCall) => Promise<unknown>][];
}
