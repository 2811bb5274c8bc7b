import { bodyOf } from '../codec/field.ts';
import { type Flat, isObject } from '../codec/flat.ts';
import { encodeAt, notAPayload } from '../codec/payload.ts';
import type { Moment } from '../platform/clock.ts';
import { keepLatest } from '../platform/keep-latest.ts';
import { payloadOf, type ReadResult, type Snapshot } from './changes.ts';
import type { Layout } from './layout.ts';

/** The number of sessions whose last read is kept. */
const MAX_LAST_READS = 10_000;

/** What a driver knows about reads by requests without identity. */
export interface UnidentifiedReads {
  /** The payload of a read. */
  payloadOf(layout: Layout, read: Snapshot): Flat;
  /** The read result in a mark that is an array; undefined when the mark is of another driver. */
  resultIn(flat: Flat, mark: readonly unknown[]): ReadResult | undefined;
  /** The last read of a session, by any request. */
  lastOf(id: string): Snapshot | undefined;
  /** Forgets the last read of a session. */
  forget(id: string): void;
}

/** @param nonce the driver's own. It ignores the marks of other drivers. */
export function createUnidentifiedReads(driver: string, nonce: string): UnidentifiedReads {
  const lastReads = new Map<string, Snapshot>();
  return {
    payloadOf(layout, { id, at, keys }) {
      // Without the values, which would stay in memory.
      const expiries = new Map([...keys].map(([key, { expires }]) => [key, { expires }]));
      keepLatest(lastReads, id, { id, at, keys: expiries }, MAX_LAST_READS);
      return selfContainedPayloadOf(layout, nonce, id, at);
    },
    resultIn: (flat, mark) => resultIn(driver, flat, mark, nonce),
    lastOf: (id) => lastReads.get(id),
    forget: (id) => void lastReads.delete(id),
  };
}

/**
 * The payload for a request that cannot be recognized when it saves the session. Its mark contains the read result: the driver's nonce, the
 * session id, the time by two clocks, and each key with its expiry and a digest of its value.
 */
export function selfContainedPayloadOf(layout: Layout, nonce: string, id: string, at: Moment): Flat {
  const mark: number[] = [];
  const flat = payloadOf(layout, mark);
  const add = (node: unknown): void => void mark.push(flat.push(node) - 1);
  [nonce, id, at.wall, at.monotonic].forEach(add);
  for (const { keyAt, expiresAt, dataAt, field } of layout.slots.values()) {
    mark.push(keyAt, expiresAt);
    // Only objects can be changed in place.
    if (dataAt !== undefined && isObject(flat, dataAt)) add(digest(bodyOf(field)));
    else mark.push(-1);
  }
  return flat;
}

/**
 * The read result in a mark of `selfContainedPayloadOf`; undefined when the mark is of another driver, which has another nonce.
 *
 * @throws an error with the code `invalid-data` when the mark is corrupt.
 */
export function resultIn(driver: string, flat: Flat, mark: readonly unknown[], nonce: string): ReadResult | undefined {
  const [nonceAt, idAt, wallAt, monotonicAt, ...rest] = mark as number[];
  if (flat[nonceAt!] !== nonce) return undefined;
  const [id, wall, monotonic] = [flat[idAt!], flat[wallAt!], flat[monotonicAt!]];
  if (typeof id !== 'string' || typeof wall !== 'number' || typeof monotonic !== 'number') throw notAPayload(driver);
  const keys = new Map<string, { expires: number | undefined; digest: unknown }>();
  for (let index = 0; index < rest.length; index += 3) {
    const [key, expires] = [flat[rest[index]!], flat[rest[index + 1]!]];
    if (typeof key !== 'string' || !['number', 'undefined'].includes(typeof expires)) throw notAPayload(driver);
    keys.set(key, { expires: expires as number | undefined, digest: flat[rest[index + 2]!] });
  }
  return {
    id,
    at: { wall, monotonic },
    keys,
    comparisonWith: (payload) => (key, position) =>
      keys.get(key)?.digest === digest(encodeAt(driver, payload, position)),
  };
}

/** A 53-bit hash of a string, to detect that a value was changed in place (cyrb53, public domain). Not cryptographic. */
function digest(text: string): number {
  let high = 0xdeadbeef;
  let low = 0x41c6ce57;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    high = Math.imul(high ^ unit, 2654435761);
    low = Math.imul(low ^ unit, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return 4294967296 * (2097151 & low) + (high >>> 0);
}
