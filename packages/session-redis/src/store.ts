import type { Change, Fields, PatchResult, SessionStore } from '@coatcheck/session-core';
import type { Connection, Request } from './connection.ts';
import { foreignKey, unreadableRecord } from './errors.ts';
import { PATCH, RECORD, RETIRE, RETIRED, TOUCH, type Script } from './script.ts';

/** One hash a session (`script.ts` says in which form), one command an operation. */
export function redisStore(connection: Connection): SessionStore {
  return {
    atomic: true,

    async read(key, call) {
      const request: Request =
        call.touchMs === undefined
          ? // Not the name in small letters: ioredis would turn the reply into an object, where `__proto__` is no key like others.
            { name: 'HGETALL', args: [key], repeatable: true }
          : { ...evaluate(TOUCH, key, [milliseconds(call.touchMs)]), repeatable: true };
      return toFields(await connection.send(request, call));
    },

    async patch(key, change, call) {
      return (await connection.send(evaluate(PATCH, key, patchArguments(change)), call)) as PatchResult;
    },

    async retire(key, retireForMs, call) {
      const held = await connection.send(evaluate(RETIRE, key, [milliseconds(retireForMs)]), call);
      return held === 'retired' ? 'retired' : toFields(held);
    },

    close: () => connection.close(),
  };
}

function evaluate({ sha1, source }: Script, key: string, args: string[]): Request {
  return { name: 'evalsha', args: [sha1, '1', key, ...args], script: source, repeatable: false };
}

/** What the script PATCH takes apart. No lifetime means never; every list stands behind its length. */
function patchArguments(change: Change): string[] {
  const { set, ifAbsent, unset, purge, expect, mustExist, lifetimeMs, capMs, idleMs, now } = change;
  const args = [
    String(now),
    lifetimeMs === 'never' ? '' : milliseconds(lifetimeMs),
    capMs === undefined ? '' : milliseconds(capMs),
    idleMs === undefined ? '' : milliseconds(idleMs),
    mustExist ? '1' : '',
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

/** The latest moment that a Date can hold; Redis's own arithmetic ends not far beyond. */
const LONGEST_MS = 8.64e15;

function milliseconds(ms: number): string {
  return String(Math.floor(Math.min(Math.max(ms, -LONGEST_MS), LONGEST_MS)));
}

function toFields(reply: unknown): Fields | null {
  const items = reply as string[] | null;
  if (!items || items.length === 0) return null;
  const fields: Fields = new Map();
  for (let index = 0; index < items.length; index += 2) fields.set(items[index]!, items[index + 1]!);
  const header = fields.get('');
  if (header === RETIRED) return null;
  if (header === undefined) throw foreignKey();
  if (!RECORD.test(header)) throw unreadableRecord();
  fields.delete('');
  return fields;
}
