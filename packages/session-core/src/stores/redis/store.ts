import { createError } from '../../contract/errors.ts';
import { type Change, type Fields, type PatchResult, type StoreCall } from '../../contract/store.ts';
import { type DriverStore, legacyKey } from '../../contract/legacy.ts';
import { PATCH, RECORD, DESTROY, TOMBSTONE, type Script, TOUCH } from './scripts.ts';

/** One Redis command, independent of the client and the protocol. */
export interface RedisCommand {
  /** The name of the command. */
  name: 'HGETALL' | 'EVALSHA' | 'EVAL' | 'MGET' | 'DEL';
  /** The arguments, keys included. */
  args: string[];
  /** For `EVALSHA`: the source of the script, to be sent with `EVAL` when Redis answers `NOSCRIPT`. */
  script?: string;
  /** Whether the command may be sent again after the connection dropped before the reply. */
  repeatable: boolean;
}

/** A connection to one Redis server or cluster, over TCP or REST. */
export interface RedisConnection {
  /**
   * Sends one command and resolves to Redis's reply: a string, a list of strings, or null. Must not send anything after the call's signal
   * has aborted. Rejects when there is no reply, or when the reply is an error (`recordError` translates the errors of the scripts).
   */
  send(command: RedisCommand, call: StoreCall): Promise<unknown>;
  /** Closes the connection. */
  close?(): Promise<void>;
}

/**
 * Creates a store on anything that understands Redis commands. Each session is one hash (see `scripts.ts`), and each operation is one
 * command. Different drivers on one Redis share their sessions.
 *
 * @param driver the driver's name, for errors.
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
      if (!isPatchResult(reply))
        throw new Error('Redis replied to a change with a value that the script never returns.');
      return reply;
    },

    async destroy(key, tombstoneMs, call) {
      const held = await connection.send(evaluate(DESTROY, key, [milliseconds(tombstoneMs)]), call);
      return held === 'destroyed' ? 'destroyed' : toFields(driver, held);
    },

    legacySessions: {
      // MGET and not GET: for a key that is not a string, MGET returns null and GET fails. Such a key is not a session.
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

/** The arguments of the script `PATCH`. An empty string stands for `never` or for an absent value. Each list is preceded by its length. */
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

/** The latest timestamp that a Date can represent. Redis's own limit for expiries is not much higher. */
const MAX_MS = 8.64e15;

function milliseconds(ms: number): string {
  return String(Math.floor(Math.min(Math.max(ms, -MAX_MS), MAX_MS)));
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

/**
 * Translates an error reply of Redis that is about the stored data: the key holds other data than a session, or a session that cannot be
 * read.
 *
 * @param driver the driver's name, for the error.
 * @param answer the message of the error reply.
 * @returns an error with the code `refused`; undefined for any other reply.
 */
export function recordError(driver: string, answer: string): Error | undefined {
  if (/\bWRONGTYPE\b/.test(answer)) return foreignKey(driver);
  if (/\bUNREADABLE\b/.test(answer)) return unreadableRecord(driver);
  return undefined;
}

function foreignKey(driver: string): Error {
  return createError(
    driver,
    'refused',
    'The key of a session holds other data (WRONGTYPE), which was not changed. Remove the key, or give this site its own `prefix`.',
  );
}

function unreadableRecord(driver: string): Error {
  return createError(
    driver,
    'refused',
    'A stored session cannot be read: its header is corrupt, or a newer version of this driver wrote it.',
  );
}
