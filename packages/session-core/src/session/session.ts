import { expiriesExcept, type SessionFields, unexpired, withField } from '../codec/field-codec.ts';
import { bodyOf, encodeField, expiryOf, isExpired, normalizeExpiry } from '../codec/field.ts';
import { decodeValue, encodeValue } from '../codec/value.ts';
import { report } from '../contract/diagnostics.ts';
import { createError, isAmbiguous } from '../contract/errors.ts';
import type { Fields, PatchResult } from '../contract/store.ts';
import { destroyAgain, type Engine } from '../engine/engine.ts';
import { mayRestore } from '../engine/may-restore.ts';
import { createSessionId } from '../engine/session-id.ts';
import { type Moment, msSince, thisMoment } from '../platform/clock.ts';
import { pause } from '../platform/retry.ts';
import { isLocalDevelopment, type SessionCookie, writeCookie } from './cookie.ts';

export interface SetOptions {
  /** How long the value lives, in seconds. Default: the `ttl` of `createSessions`. */
  ttl?: number | undefined;
}

type Key<Data> = keyof Data & string;

/** The session of one visitor during one request. The methods have the names and the meaning of Astro's. */
export interface Session<Data extends object = Record<string, unknown>> {
  /** The value, or undefined when there is none or it has expired. Changing it in place saves nothing: `set` it again. */
  get<Name extends Key<Data>>(key: Name): Promise<Data[Name] | undefined>;
  has(key: Key<Data>): Promise<boolean>;
  keys(): Promise<Key<Data>[]>;
  values(): Promise<Data[Key<Data>][]>;
  entries(): Promise<[Key<Data>, Data[Key<Data>]][]>;
  /** Stores the value, as it is now, when `commit` is called. Throws at once for a value that cannot be stored. */
  set<Name extends Key<Data>>(key: Name, value: Data[Name], options?: SetOptions): void;
  delete(key: Key<Data>): void;
  /**
   * Computes a new value from the current one, without losing changes that other requests make at the same time: `change` may run several
   * times. If `change` returns undefined, the key is deleted. Resolves to the new value when it is stored, which is before `commit`, unless
   * this request has set or deleted the key itself. Rejects when `change` throws, and when other requests keep changing the value until the
   * driver's timeout. If the session is destroyed meanwhile, the change is dropped, as in `commit`.
   */
  update<Name extends Key<Data>>(
    key: Name,
    change: (value: Data[Name] | undefined) => Data[Name] | undefined | Promise<Data[Name] | undefined>,
    options?: SetOptions,
  ): Promise<Data[Name] | undefined>;
  /** Gives the session a new id, against session fixation: call it when someone signs in. The old id is worthless after `commit`. */
  regenerate(): Promise<void>;
  /** Destroys the session when `commit` is called. What is set afterwards begins a new one. */
  destroy(): void;
  /** Continues with the session of that id, if there is one. Changes made before are dropped. */
  load(sessionID: string): Promise<void>;
  /** The id, as far as it is known: an id from a cookie may turn out to be unknown to the backend, and is replaced then. */
  readonly sessionID: string | undefined;
  /**
   * Stores the changes and resolves to the `Set-Cookie` header to send, or to undefined when there is none to send. Waits for updates that
   * are being stored. Changing the session afterwards throws. If another request destroyed the session meanwhile, it stays destroyed: the
   * changes are dropped, and no cookie is sent, because the browser may have signed in again by then.
   */
  commit(): Promise<string | undefined>;
}

/** What all sessions of one `createSessions` share. */
export interface SessionContext {
  engine: Engine;
  ttl: number | undefined;
  cookie: SessionCookie & { name: string };
}

/**
 * What this request knows of the session. `id` is where the backend holds it, or will hold it; `fields` is what it held when it was last
 * asked, if it had the session.
 *
 *     unread   a read finds it: live; a read or a write does not: absent
 *     absent   something is stored: live
 *     live     `regenerate`: moving
 *     moving   `commit`: live under the new id; absent if another request has destroyed it
 *     any      `destroy`, or another request has destroyed it: absent; `load`: live, or absent if there is none
 */
type State = Unread | Absent | Live | Moving;

/** The cookie has an id, and the backend was not asked about it. */
interface Unread {
  is: 'unread';
  id: string;
  fields?: undefined;
}

/** There is no session. One begins when something is stored. */
interface Absent {
  is: 'absent';
  /** A new one, made as soon as something is set. */
  id?: string | undefined;
  fields?: undefined;
  /** The id of the cookie, if a read has not found its session: another request may have destroyed it. */
  unknownId?: string | undefined;
  /** Whether a write under the new id was sent. If it failed, it may have been stored all the same. */
  mayExist?: boolean | undefined;
}

interface Live {
  is: 'live';
  id: string;
  fields: SessionFields;
  readAt: Moment;
}

/** Still under `id`, until `commit` moves it. */
interface Moving {
  is: 'moving';
  id: string;
  fields: SessionFields;
  readAt: Moment;
  to: string;
  /** As in `Absent`, for `to`. */
  mayExist?: boolean;
  /** Why the session could not be destroyed under `id`. */
  failure?: unknown;
}

const FIRST_PAUSE_MS = 2;
const LONGEST_PAUSE_MS = 50;

/** @param cookieId the id that the browser holds unless it gets another cookie. */
export function openSession<Data extends object>(
  { engine, ttl, cookie }: SessionContext,
  cookieId: string | undefined,
  request: { url: string } | undefined,
): Session<Data> {
  const { driver } = engine;
  let state: State = cookieId === undefined ? { is: 'absent' } : { is: 'unread', id: cookieId };
  /** What this request did to each key: an encoded field, or null for a deletion. */
  const changes = new Map<string, string | null>();
  /** The ids that `commit` destroys; undefined unless this request called `destroy`. */
  let destroyed: string[] | undefined;
  const decoded = new Map<string, { field: string; value: unknown }>();
  let reading: Promise<unknown> | undefined;
  /** Updates that are being stored. */
  const storing = new Set<Promise<boolean>>();
  let committing: Promise<string | undefined> | undefined;
  /** Whether this request stored anything. */
  let wrote = false;

  const session: Session = {
    get sessionID() {
      return state.is === 'moving' ? state.to : state.id;
    },

    async get(key) {
      const change = changes.get(key);
      if (change !== undefined) return decode(key, change);
      const fields = state.is === 'unread' ? await load() : state.fields;
      return decode(key, fields?.get(key));
    },

    async has(key) {
      const field = changes.has(key) ? changes.get(key) : (await load())?.get(key);
      return typeof field === 'string' && !isExpired(expiryOf(field), Date.now());
    },

    async keys() {
      return [...changed(await load()).keys()];
    },

    async values() {
      return (await session.entries()).map(([, value]) => value);
    },

    async entries() {
      const entries = [...changed(await load())].map(([key, field]): [string, unknown] => [key, decode(key, field)]);
      // A corrupt field has no entry; a value that is undefined has.
      return entries.filter(([key]) => decoded.has(key));
    },

    set(key, value, options) {
      assertOpen();
      assertKey(key);
      changes.set(key, encode(key, value, options));
      state.id ??= createSessionId();
    },

    delete(key) {
      assertOpen();
      assertKey(key);
      changes.set(key, null);
    },

    async update(key, change, options) {
      assertOpen();
      assertKey(key);
      if (typeof change !== 'function')
        throw new TypeError('`update` takes a function that makes the new value of the old one.');
      const run = async (before: string | null): Promise<{ value: unknown; after: string | null }> => {
        // `change` may change its value in place: what `get` has returned or will return is another copy.
        decoded.delete(key);
        const current = decode(key, before);
        decoded.delete(key);
        const value = await change(current);
        assertOpen();
        return { value, after: value === undefined ? null : encode(key, value, options) };
      };

      for (let own = changes.get(key); own !== undefined; own = changes.get(key)) {
        // This request has already overwritten the key: `commit` stores that, whatever others do to it meanwhile.
        const { value, after } = await run(own);
        if (changes.get(key) !== own) continue;
        changes.set(key, after);
        return value;
      }

      const begunAt = thisMoment();
      for (let round = 0; ; round++) {
        const before = (await load())?.get(key) ?? null;
        const { value, after } = await run(before);
        const attempt = storeUpdate(key, before, after);
        storing.add(attempt);
        if (await attempt.finally(() => storing.delete(attempt))) return value;
        if (msSince(begunAt) > engine.timeoutMs) {
          const message =
            'Others changed this value again and again until the deadline; the change was not stored. Try again.';
          throw createError(driver, 'timeout', message, { operation: 'update' });
        }
        // Random, so that requests that collided do not collide again.
        await pause(Math.random() * Math.min(FIRST_PAUSE_MS * 2 ** round, LONGEST_PAUSE_MS));
        if (!(await read())) return value;
      }
    },

    async regenerate() {
      assertOpen();
      await load();
      assertOpen();
      // A new id under which something may be stored is kept: no browser has seen it.
      if (state.is === 'live') state = { ...state, is: 'moving', to: createSessionId() };
      else if (state.is === 'moving') state.to = state.mayExist ? state.to : createSessionId();
      else if (state.is === 'absent') {
        if (!state.mayExist) state.id = createSessionId();
        // Somebody who signs in gets a session, whatever became of the one before.
        state.unknownId = undefined;
      }
    },

    destroy() {
      assertOpen();
      destroyed ??= [];
      if (state.is !== 'absent' || state.mayExist) destroyed.push(state.id!);
      if (state.is === 'moving' && state.mayExist) destroyed.push(state.to);
      forget();
    },

    async load(id) {
      assertOpen();
      forget();
      const readAt = thisMoment();
      const fields = await engine.read(id);
      assertOpen();
      if (fields) state = { is: 'live', id, fields, readAt };
    },

    commit() {
      committing ??= store().catch((error: unknown) => {
        committing = undefined;
        throw error;
      });
      return committing;
    },
  };
  // With the methods on the prototype, nothing of the session, such as its id, gets into the JSON of an object that holds it.
  return Object.create(session) as Session<Data>;

  async function load(): Promise<SessionFields | undefined> {
    if (state.is === 'unread') await (reading ??= read().finally(() => (reading = undefined)));
    return state.fields;
  }

  /** Reads what is stored now. Resolves to false when another request has destroyed the session: the changes are dropped. */
  async function read(): Promise<boolean> {
    const { id } = state;
    const readAt = thisMoment();
    const fields = id === undefined ? null : await engine.read(id);
    // Destroyed meanwhile, or another one was loaded.
    if (state.id !== id) return true;
    if (fields) know(fields, readAt);
    else if (state.fields) {
      drop('destroyed');
      return false;
    }
    // An id that the backend does not know is never used for a new session: it could be an attacker's.
    else if (state.is === 'unread')
      state = { is: 'absent', id: changes.size > 0 ? createSessionId() : undefined, unknownId: id };
    return true;
  }

  /** @param readAt when the backend was asked: what it answered was true then or later. */
  function know(fields: SessionFields, readAt: Moment): void {
    if (state.fields) Object.assign(state, { fields, readAt });
    else state = { is: 'live', id: state.id!, fields, readAt };
  }

  async function store(): Promise<string | undefined> {
    while (storing.size > 0) await Promise.allSettled(storing);
    if (state.is === 'moving') await move(state);
    if (changes.size > 0) await storeChanges();
    for (const id of destroyed ?? []) await engine.destroy(id);
    if (state.is !== 'absent') {
      const renews = wrote && cookie.maxAge !== undefined;
      return state.id !== cookieId || renews ? setCookie(state.id) : undefined;
    }
    // A session that was merely not found may be found again: not every backend shows at once what was written elsewhere.
    // When another request destroyed it, clearing the cookie could delete the one of a sign-in that was answered meanwhile.
    return destroyed && cookieId !== undefined ? setCookie('') : undefined;
  }

  function setCookie(value: string): string {
    return writeCookie(cookie, value, request !== undefined && isLocalDevelopment(request.url));
  }

  async function move(moving: Moving): Promise<void> {
    const { id: from, to, failure } = moving;
    const before = new Map(moving.fields);
    const fields = changed(before);
    const unset = [...changes.keys()].filter((key) => changes.get(key) === null);
    const readAt = thisMoment();
    moving.mayExist = true;
    // Stored under the new id before the old one is destroyed: a failure in between loses nothing.
    await engine.patch(to, { set: fields, unset });
    const held = await (failure ? destroyAgain(engine, from, failure) : engine.destroy(from)).catch(
      (error: unknown) => {
        if (!failure || isAmbiguous(error)) moving.failure = error;
        throw error;
      },
    );
    if (held === 'destroyed' || (held === null && !mayRestore(moving.readAt, engine.timeoutMs))) {
      // Another request had destroyed it: only what this one did itself may live on, under an id of its own.
      await engine.destroy(to);
      report(held === null ? 'stale-write' : 'destroyed-write', driver);
      state = { is: 'absent' };
      return;
    }
    // What was stored under the old id since it was read is a change to the new one.
    const last = unexpired(held ?? before);
    for (const key of new Set([...before.keys(), ...last.keys()])) {
      if (!changes.has(key) && last.get(key) !== before.get(key)) changes.set(key, last.get(key) ?? null);
    }
    state = { is: 'live', id: to, fields, readAt };
    wrote = true;
  }

  /** Stores what the request changed, and nothing else. */
  async function storeChanges(): Promise<void> {
    const fields = state.fields;
    const mayHoldAny = state.is === 'unread' || (state.is === 'absent' && state.mayExist);
    const mayHold = (key: string): boolean =>
      mayHoldAny || fields?.get(key) !== undefined || (fields?.unopened?.(key).size ?? 0) > 0;
    const set: Fields = new Map();
    const unset: string[] = [];
    for (const [key, field] of changes) {
      if (field !== null && fields?.get(key) !== field) set.set(key, field);
      if (field === null && mayHold(key)) unset.push(key);
    }
    if (set.size + unset.length === 0 || (await isDestroyed())) return;
    const readAt = thisMoment();
    let result = await patch(set, unset);
    if (result === 'missing' && !state.fields) {
      // An id that the backend does not know is never used for a new session: it could be an attacker's.
      if (set.size === 0) return;
      state = { is: 'absent' };
      result = await patch(set, unset);
    }
    if (result !== 'applied') return drop(result);
    if (state.is === 'absent' && state.mayExist) know(set, readAt);
    wrote = true;
  }

  /** Whether the update is done with; false when it has to be made again on what is stored now. */
  async function storeUpdate(key: string, before: string | null, after: string | null): Promise<boolean> {
    if (after === before || (await isDestroyed())) return true;
    const set: Fields = new Map(after === null ? [] : [[key, after]]);
    const id = (state.id ??= createSessionId());
    const readAt = thisMoment();
    const result = await patch(set, after === null ? [key] : [], new Map([[key, before]]));
    if (result === 'conflict') return false;
    if (result !== 'applied') drop(result, id);
    // Not if this request has destroyed the session meanwhile, or loaded another one.
    else if (state.id === id) {
      know(withField(state.fields ?? new Map(), key, after), readAt);
      wrote = true;
    }
    return true;
  }

  /** Changes the session where it is stored, or begins one. If the backend has lost it, what is known of it is put back. */
  async function patch(set: Fields, unset: string[], expect?: Map<string, string | null>): Promise<PatchResult> {
    const id = (state.id ??= createSessionId());
    const mustExist = state.is !== 'absent';
    if (state.is === 'absent') state.mayExist = true;
    const fields = state.fields;
    const untouched = fields ? expiriesExcept(fields, new Set([...set.keys(), ...unset])) : [];
    const expectUnopened = expect && fields?.unopened?.([...expect.keys()][0]!);
    const change = { set, unset, untouched, mustExist, ...(expect && { expect, expectUnopened }) };
    const result = await engine.patch(id, change);
    if (result !== 'missing' || state.id !== id || !state.fields || !mayRestore(state.readAt, engine.timeoutMs))
      return result;
    // It was there when this request read it, too recently to have been destroyed and forgotten since: the backend has lost it.
    const ifAbsent = unexpired(state.fields);
    if (expect) {
      const restored = await engine.patch(id, { set: new Map(), ifAbsent });
      return restored === 'applied' ? 'conflict' : restored;
    }
    for (const key of unset) ifAbsent.delete(key);
    return engine.patch(id, { set, ifAbsent });
  }

  /** Whether another request has destroyed the session of the cookie; then the changes of this one are dropped. */
  async function isDestroyed(): Promise<boolean> {
    if (state.is !== 'absent' || state.unknownId === undefined) return false;
    const { unknownId } = state;
    const result = await engine.patch(unknownId, { set: new Map(), mustExist: true });
    // Not where another update has found it out meanwhile.
    if (state.unknownId === unknownId) {
      state.unknownId = undefined;
      if (result === 'destroyed') drop(result);
    }
    return result === 'destroyed';
  }

  /** The session as this request sees it: what is stored, with its own changes. */
  function changed(stored: Iterable<[string, string]> = []): Fields {
    const fields: Fields = new Map(stored);
    for (const [key, field] of changes) {
      if (field === null) fields.delete(key);
      else fields.set(key, field);
    }
    return unexpired(fields);
  }

  function forget(): void {
    state = { is: 'absent' };
    changes.clear();
    decoded.clear();
  }

  /** Reports that a write was dropped. The session with that id, if this request has it still, is gone. */
  function drop(result: PatchResult, id = state.id): void {
    report(result === 'missing' ? 'stale-write' : 'destroyed-write', driver);
    if (state.id === id) forget();
  }

  function assertOpen(): void {
    if (!committing) return;
    const message = 'The session was used after commit(): the change would be lost. Commit when everything is done.';
    throw createError(driver, 'committed', message);
  }

  function assertKey(key: unknown): void {
    if (typeof key === 'string' && key !== '') return;
    const message = 'Session keys must be strings that are not empty. Nothing was stored.';
    throw createError(driver, 'invalid-data', message);
  }

  function encode(key: string, value: unknown, options: SetOptions | undefined): string {
    const seconds = options?.ttl ?? ttl;
    if (seconds !== undefined && (typeof seconds !== 'number' || Number.isNaN(seconds))) {
      const message = `The \`ttl\` of \`${key}\` must be a number of seconds. Nothing was stored.`;
      throw createError(driver, 'invalid-data', message);
    }
    const expires = seconds === undefined ? undefined : normalizeExpiry(Date.now() + seconds * 1000);
    try {
      return encodeField(expires, encodeValue(value));
    } catch (cause) {
      // The keys of a Map are values; names of properties are code.
      const path = (cause as { path?: string }).path?.replace(/\.get\(.*/s, '.get(…)');
      const message =
        `The value of \`${key}\` cannot be stored${path ? `, because of what is at ${path}` : ''}. ` +
        'What can: https://github.com/sveltejs/devalue';
      throw createError(driver, 'invalid-data', message, { cause });
    }
  }

  function decode(key: string, field: string | null | undefined): unknown {
    if (field === null || field === undefined || isExpired(expiryOf(field), Date.now())) return undefined;
    const earlier = decoded.get(key);
    if (earlier?.field === field) return earlier.value;
    decoded.delete(key);
    try {
      const value = decodeValue(bodyOf(field));
      decoded.set(key, { field, value });
      return value;
    } catch {
      report('corrupt-field', driver);
      return undefined;
    }
  }
}
