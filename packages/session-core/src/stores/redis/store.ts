import { type Change, type Fields, type PatchResult, type StoreCall } from '../../contract/store.ts';
import { type DriverStore, legacyKey } from '../../contract/legacy.ts';
import { errorOfRecord } from './errors.ts';
import { hashes, type Script } from './hashes.ts';
import { RECORD, TOMBSTONE } from './header.ts';

/** One Redis command, independent of the client and the protocol. */
export interface RedisCommand {
  /** The name of the command. */
  name: 'HGETALL' | 'EVALSHA' | 'EVAL' | 'MGET' | 'DEL';
  /** The arguments, keys included. */
  args: string[];
  /** Whether the command may be sent again after the connection dropped before the reply. */
  repeatable: boolean;
}

/** A connection to one Redis server or cluster, over TCP or REST. */
export interface RedisConnection {
  /**
   * Sends one command and resolves to Redis's reply: a string, a list of strings, or null. Must not send anything after the call's signal
   * has aborted. Rejects when there is no reply, or when the reply is an error. `explainReply` creates the error for a reply.
   */
  send(command: RedisCommand, call: StoreCall): Promise<unknown>;
  /** Closes the connection. */
  close?(): Promise<void>;
}

/**
 * Creates a store on anything that understands Redis commands. Each session is one hash (see `header.ts`), and each operation is one
 * command. Different drivers on one Redis share their sessions.
 *
 * @param driver the driver's name, for errors.
 */
export function redisStore(driver: string, connection: RedisConnection): DriverStore {
  /** Runs a script by its hash. If Redis does not have the script yet, sends the source. */
  const run = async (script: Script, key: string, args: string[], call: StoreCall, repeatable = false) => {
    const send = (name: 'EVALSHA' | 'EVAL', which: string): Promise<unknown> =>
      connection.send({ name, args: [which, '1', key, ...args], repeatable }, call);
    try {
      return await send('EVALSHA', hashes[script]);
    } catch (error) {
      if (!isUnknownScript(error)) throw error;
      return send('EVAL', (await import('./scripts.ts')).scripts[script]);
    }
  };

  return {
    atomic: true,

    async read(key, call) {
      const reply =
        call.extendIdleMs === undefined
          ? await connection.send({ name: 'HGETALL', args: [key], repeatable: true }, call)
          : await run('touch', key, [milliseconds(call.extendIdleMs)], call, true);
      return toFields(driver, reply);
    },

    async patch(key, change, call) {
      const reply = await run('patch', key, patchArguments(change), call);
      if (!isPatchResult(reply))
        throw new Error('Redis replied to a change with a value that the script never returns.');
      return reply;
    },

    async destroy(key, tombstoneMs, call) {
      const contents = await run('destroy', key, [milliseconds(tombstoneMs)], call);
      return contents === 'destroyed' ? 'destroyed' : toFields(driver, contents);
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

function isUnknownScript(error: unknown): boolean {
  const { cause } = error as { cause?: unknown };
  return cause instanceof Error && cause.message.startsWith('NOSCRIPT');
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
  const present: string[] = [];
  const absent: string[] = [];
  for (const [name, value] of expect ?? []) {
    if (value === null) absent.push(name);
    else present.push(name, value);
  }
  add(present.length / 2, present);
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
  if (header === undefined) throw errorOfRecord(driver, 'WRONGTYPE');
  if (!RECORD.test(header)) throw errorOfRecord(driver, 'UNREADABLE');
  fields.delete('');
  return fields;
}
