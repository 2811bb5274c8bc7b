import { createError } from '../../contract/errors.ts';
import { type Change, type Fields, type PatchResult, type StoreCall } from '../../contract/store.ts';
import { type DriverStore, legacyKey } from '../../contract/legacy.ts';
import { PATCH, RECORD, DESTROY, TOMBSTONE, type Script, TOUCH } from './scripts.ts';

/** One command to Redis, in whatever way it gets there. */
export interface RedisCommand {
  name: 'HGETALL' | 'EVALSHA' | 'EVAL' | 'MGET' | 'DEL';
  args: string[];
  /** The source of the script whose SHA-1 is the first argument, for a Redis that does not have it. */
  script?: string;
  /** Whether it may be sent again when the connection broke before the answer came. */
  repeatable: boolean;
}

/** A way to one Redis, or to one cluster, over TCP or REST. */
export interface RedisConnection {
  /**
   * Sends one command and resolves to Redis's own reply: a text, a list of texts, or null. Sends nothing once the call's signal has
   * aborted. Rejects when there is no answer, and when the answer is an error (`recordError` knows those of the scripts).
   */
  send(command: RedisCommand, call: StoreCall): Promise<unknown>;
  close?(): Promise<void>;
}

/**
 * Sessions in anything that speaks Redis's commands: one hash a session (`scripts.ts` says in which form), one command an
 * operation. Stores of different drivers on one Redis see the same sessions.
 */
export function redisStore(driver: string, connection: RedisConnection): DriverStore {
  return {
    atomic: true,

    async read(key, call) {
      const command: RedisCommand =
        call.extendIdleMs === undefined
          ? { name: 'HGETALL', args: [key], repeatable: true }
          : { ...evaluate(TOUCH, key, [milliseconds(call.extendIdleMs)]), repeatable: true };
      return toFields(driver, await connection.send(command, call));
    },

    async patch(key, change, call) {
      const reply = await connection.send(evaluate(PATCH, key, patchArguments(change)), call);
      if (!isPatchResult(reply)) throw new Error('The reply to a change is none that its script gives.');
      return reply;
    },

    async destroy(key, tombstoneMs, call) {
      const held = await connection.send(evaluate(DESTROY, key, [milliseconds(tombstoneMs)]), call);
      return held === 'destroyed' ? 'destroyed' : toFields(driver, held);
    },

    legacySessions: {
      // MGET answers with null where GET refuses: a key that holds no text holds no session.
      async read(id, base, call) {
        const [payload] = (await connection.send(
          { name: 'MGET', args: [legacyKey(id, base)], repeatable: true },
          call,
        )) as unknown[];
        return payload;
      },
      async remove(id, base, call) {
        await connection.send({ name: 'DEL', args: [legacyKey(id, base)], repeatable: true }, call);
      },
    },

    ...(connection.close && { close: () => connection.close!() }),
  };
}

function evaluate({ sha1, source }: Script, key: string, args: string[]): RedisCommand {
  return { name: 'EVALSHA', args: [sha1, '1', key, ...args], script: source, repeatable: false };
}

/** What the script PATCH takes apart. No lifetime means never; every list stands behind its length. */
function patchArguments(change: Change): string[] {
  const { set, ifAbsent, unset, purge, expect, mustExist, mustBeNew, lifetimeMs, defaultTtlMs, idleMs, now } = change;
  const args = [
    String(now),
    lifetimeMs === 'never' ? '' : milliseconds(lifetimeMs),
    defaultTtlMs === undefined ? '' : milliseconds(defaultTtlMs),
    idleMs === undefined ? '' : milliseconds(idleMs),
    mustExist ? 'exists' : mustBeNew ? 'new' : '',
  ];
  const add = (count: number, items: Iterable<string>): void => {
    args.push(String(count));
    for (const item of items) args.push(item);
  };
  const held: string[] = [];
  const absent: string[] = [];
  for (const [name, value] of expect ?? []) {
    if (value === null) absent.push(name);
    else held.push(name, value);
  }
  add(held.length / 2, held);
  add(absent.length, absent);
  add(unset.length, unset);
  add(purge?.length ?? 0, purge ?? []);
  add(ifAbsent?.size ?? 0, ifAbsent ? [...ifAbsent].flat() : []);
  add(set.size, [...set].flat());
  return args;
}

function isPatchResult(reply: unknown): reply is PatchResult {
  return reply === 'applied' || reply === 'destroyed' || reply === 'missing' || reply === 'conflict';
}

/** The latest moment that a Date can hold; Redis's own arithmetic ends not far beyond. */
const LONGEST_MS = 8.64e15;

function milliseconds(ms: number): string {
  return String(Math.floor(Math.min(Math.max(ms, -LONGEST_MS), LONGEST_MS)));
}

function toFields(driver: string, reply: unknown): Fields | null {
  const items = reply as string[] | null;
  if (!items || items.length === 0) return null;
  const fields: Fields = new Map();
  for (let index = 0; index < items.length; index += 2) fields.set(items[index]!, items[index + 1]!);
  const header = fields.get('');
  if (header === TOMBSTONE) return null;
  if (header === undefined) throw foreignKey(driver);
  if (!RECORD.test(header)) throw unreadableRecord(driver);
  fields.delete('');
  return fields;
}

/** What Redis's answer means where it is about the record itself: the key holds something else, or a form that is not known. */
export function recordError(driver: string, answer: string): Error | undefined {
  if (/\bWRONGTYPE\b/.test(answer)) return foreignKey(driver);
  if (/\bUNREADABLE\b/.test(answer)) return unreadableRecord(driver);
  return undefined;
}

function foreignKey(driver: string): Error {
  return createError(
    driver,
    'refused',
    'The key of a session holds something else (WRONGTYPE), and was left alone. Remove it, or give this site a `prefix` of its own.',
  );
}

function unreadableRecord(driver: string): Error {
  return createError(
    driver,
    'refused',
    'A stored session is in a form that this version does not know: its header is corrupt, or a newer version wrote it.',
  );
}
