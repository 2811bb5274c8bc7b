import { expiriesExcept, type SessionFields, unexpired, withField } from '../codec/field-codec.ts';
import { bodyOf, createdAt, encodeField, expiryOf, isExpired, normalizeExpiry } from '../codec/field.ts';
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

/** Options of `set` and `update`. */
export interface SetOptions {
  /**
   * How long the value lives, in seconds.
   *
   * @default the `ttl` of `createSessions`
   */
  ttl?: number | undefined;
}

type Key<Data> = keyof Data & string;

/**
 * The session of one request. Its methods have the names and the meaning of those of `Astro.session`. A method that reads rejects if the
 * backend fails. A method that changes the session fails with the code `committed` after `commit()`, and with `invalid-data` if its key is
 * not a non-empty string.
 */
export interface Session<Data extends object = Record<string, unknown>> {
  /**
   * Resolves to the value of a key; to undefined if it has none, or if the value has expired. Changing the value in place stores nothing:
   * `set` it again.
   */
  get<Name extends Key<Data>>(key: Name): Promise<Data[Name] | undefined>;
  /** Resolves to whether the key has a value that has not expired. */
  has(key: Key<Data>): Promise<boolean>;
  /** Resolves to all keys. */
  keys(): Promise<Key<Data>[]>;
  /** Resolves to all values. */
  values(): Promise<Data[Key<Data>][]>;
  /** Resolves to all keys, each with its value. */
  entries(): Promise<[Key<Data>, Data[Key<Data>]][]>;
  /**
   * Sets a value. `commit` stores it as it is now.
   *
   * @throws {SessionDriverError} `invalid-data` if the value or the `ttl` is invalid.
   * @example
   * session.set('cart', new Map([['hat', 2]]), { ttl: 3600 });
   */
  set<Name extends Key<Data>>(key: Name, value: Data[Name], options?: SetOptions): void;
  /** Deletes a value when `commit` is called. A key without a value is not an error. */
  delete(key: Key<Data>): void;
  /**
   * Computes a new value from the current one, without lost updates. Resolves to the new value when it has been stored. If this request has
   * already `set` or deleted the key, the new value is only stored by `commit`. If another request has destroyed the session, the change is
   * dropped, as in `commit`.
   *
   * @param change receives the current value, or undefined if there is none. It may run several times, because another request may change
   *   the value in the meantime. If it returns undefined, the key is deleted.
   * @throws the error of `change`.
   * @throws {SessionDriverError} `timeout` if other requests keep changing the value until the deadline; `invalid-data` if the new value or
   *   the `ttl` is invalid.
   * @example
   * const visits = await session.update('visits', (count = 0) => count + 1);
   */
  update<Name extends Key<Data>>(
    key: Name,
    change: (value: Data[Name] | undefined) => Data[Name] | undefined | Promise<Data[Name] | undefined>,
    options?: SetOptions,
  ): Promise<Data[Name] | undefined>;
  /**
   * Gives the session a new id, which prevents session fixation: call it when a user signs in. `commit` moves the session to the new id.
   * After that, the old id is invalid.
   */
  regenerate(): Promise<void>;
  /** Destroys the session when `commit` is called. Values that are set afterwards are stored in a new session. */
  destroy(): void;
  /** Continues with the session that has this id, or without a session if there is none. Changes made before are dropped. */
  load(sessionID: string): Promise<void>;
  /**
   * The session id; undefined if there is no session yet. An id from a cookie is replaced later if the backend turns out not to know it.
   */
  readonly sessionID: string | undefined;
  /**
   * Stores the changes. Resolves to the value of the `Set-Cookie` header to send; to undefined if no cookie has to be sent. It waits until
   * all updates are stored. After it, changing the session is an error. If another request has destroyed the session, it stays destroyed:
   * the changes are dropped, and no cookie is sent, because the browser may have signed in again in the meantime.
   *
   * @throws {SessionDriverError} if the backend fails. Then `commit` can be called again.
   * @example
   * const setCookie = await session.commit();
   * if (setCookie) response.headers.append('set-cookie', setCookie);
   */
  commit(): Promise<string | undefined>;
}

/** What all sessions of one `createSessions` share. */
export interface SessionContext {
  engine: Engine;
  /** How long a value lives after it is set, in seconds. Undefined: as the driver's `ttl` says. */
  ttl: number | undefined;
  cookie: SessionCookie & { name: string };
}

/**
 * What this request knows about the session. `id` is the id under which the session is stored, or will be stored. `fields` are its fields
 * as of the last read or write.
 *
 *     unread   a read finds the session: live. A read or a write finds none: absent.
 *     absent   something is stored: live.
 *     live     `regenerate`: moving.
 *     moving   `commit`: live under the new id; absent if another request has destroyed the session.
 *     any      `destroy`, or another request has destroyed the session: absent. `load`: live; absent if there is no such session.
 */
type State = Unread | Absent | Live | Moving;

/** The cookie has a session id, and the backend has not been asked for that session yet. */
interface Unread {
  is: 'unread';
  id: string;
  fields?: undefined;
}

/** There is no session. A new one starts when something is stored. */
interface Absent {
  is: 'absent';
  /** The id of the new session. It is created when it is needed. */
  id?: string | undefined;
  fields?: undefined;
  /** The id of the cookie, if a read has found no session with it. Another request may have destroyed that session. */
  unknownId?: string | undefined;
  /** Whether a write with the new id was sent. Even if it failed, it may have been stored. */
  mayExist?: boolean | undefined;
  /** When that write was sent first, as the session stores it. */
  created?: string;
}

/** The backend has the session, as of the last read or write. */
interface Live {
  is: 'live';
  id: string;
  fields: SessionFields;
  /** When the request that returned `fields` was sent. The backend had these fields then or later. */
  readAt: Moment;
}

/** The session has a new id, and is still stored under the old one until `commit` moves it. */
interface Moving {
  is: 'moving';
  id: string;
  fields: SessionFields;
  /** As in `Live`. */
  readAt: Moment;
  /** The new id. */
  to: string;
  /** As in `Absent`, for the new id. */
  mayExist?: boolean;
  /** The error, if destroying the session under its old id has failed. */
  failure?: unknown;
}

/** The longest pause after the first attempt of `update`, in milliseconds. Each pause is random, and its maximum doubles every time. */
const FIRST_PAUSE_MS = 2;
/** The longest pause after any attempt of `update`, in milliseconds. */
const LONGEST_PAUSE_MS = 50;

const ID = Symbol('sessionID');

/**
 * The prototype of all sessions. `sessionID` is here, so that the JSON of an object that contains a session never contains its id. An
 * accessor of each session's own would take longer than everything else that opens a session.
 */
const withSessionId: object = Object.defineProperty({}, 'sessionID', {
  get(this: { [ID]?(): string | undefined }) {
    return this[ID]?.();
  },
});

/**
 * Opens the session of one request. Reads nothing.
 *
 * @param cookieId the session id in the cookie of the browser; undefined if there is no valid one.
 * @param request the request, for the default of the cookie attribute `secure`; undefined if only the `Cookie` header is known.
 */
export function openSession<Data extends object>(
  { engine, ttl, cookie }: SessionContext,
  cookieId: string | undefined,
  request: { url: string } | undefined,
): Session<Data> {
  const { driver } = engine;
  let state: State = cookieId === undefined ? { is: 'absent' } : { is: 'unread', id: cookieId };
  /** The changes of this request that are not stored yet, by session key: an encoded field, or null if the key was deleted. */
  const changes = new Map<string, string | null>();
  /** The ids that `commit` destroys. Undefined unless this request has called `destroy`. */
  let idsToDestroy: string[] | undefined;
  /** The decoded values, by session key. Each is valid as long as its field is the same. */
  const decoded = new Map<string, { field: string; value: unknown }>();
  let reading: Promise<unknown> | undefined;
  /** The updates that are being stored. */
  const pendingUpdates = new Set<Promise<boolean>>();
  let committing: Promise<string | undefined> | undefined;
  /** Whether this request has stored anything. */
  let wrote = false;

  const session = {
    __proto__: withSessionId,

    [ID]: () => (state.is === 'moving' ? state.to : state.id),

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
      return [...withChanges(await load()).keys()];
    },

    async values() {
      return (await session.entries()).map(([, value]) => value);
    },

    async entries() {
      const entries = [...withChanges(await load())].map(([key, field]): [string, unknown] => [
        key,
        decode(key, field),
      ]);
      // Leave out corrupt fields, but keep values that are undefined.
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
        throw new TypeError('`update` takes a function that computes the new value from the current one.');
      const run = async (before: string | null): Promise<{ value: unknown; after: string | null }> => {
        // `change` may modify its argument in place. So it gets a copy of its own, which `get` never returns.
        decoded.delete(key);
        const current = decode(key, before);
        decoded.delete(key);
        const value = await change(current);
        assertOpen();
        return { value, after: value === undefined ? null : encode(key, value, options) };
      };

      for (let own = changes.get(key); own !== undefined; own = changes.get(key)) {
        // This request has already set or deleted the key. Compute the new value from that: `commit` overwrites what other requests store.
        const { value, after } = await run(own);
        if (changes.get(key) !== own) continue;
        changes.set(key, after);
        return value;
      }

      const startedAt = thisMoment();
      for (let round = 0; ; round++) {
        const before = (await load())?.get(key) ?? null;
        const { value, after } = await run(before);
        const attempt = storeUpdate(key, before, after);
        pendingUpdates.add(attempt);
        if (await attempt.finally(() => pendingUpdates.delete(attempt))) return value;
        if (msSince(startedAt) > engine.timeoutMs) {
          const message =
            'Other requests kept changing this value until the deadline; the change was not stored. Try again.';
          throw createError(driver, 'timeout', message, { operation: 'update' });
        }
        // A random pause, so that requests that have collided do not collide again.
        await pause(Math.random() * Math.min(FIRST_PAUSE_MS * 2 ** round, LONGEST_PAUSE_MS));
        if (!(await read())) return value;
      }
    },

    async regenerate() {
      assertOpen();
      await load();
      assertOpen();
      // Keep a new id under which something may already be stored. No browser has it yet, so it is as good as another new one.
      if (state.is === 'live') state = { ...state, is: 'moving', to: createSessionId() };
      else if (state.is === 'moving') state.to = state.mayExist ? state.to : createSessionId();
      else if (state.is === 'absent') {
        if (!state.mayExist) state.id = createSessionId();
        // A user who signs in gets a session, even if another request has destroyed the old one.
        state.unknownId = undefined;
      }
    },

    destroy() {
      assertOpen();
      idsToDestroy ??= [];
      if (state.is !== 'absent' || state.mayExist) idsToDestroy.push(state.id!);
      if (state.is === 'moving' && state.mayExist) idsToDestroy.push(state.to);
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
      committing ??= storeAll().catch((error: unknown) => {
        committing = undefined;
        throw error;
      });
      return committing;
    },
  } as Omit<Session, 'sessionID'> as Session;
  return session as Session<Data>;

  /** Reads the session if that has not been done yet. Resolves to its fields; to undefined if there is no session. */
  async function load(): Promise<SessionFields | undefined> {
    if (state.is === 'unread') await (reading ??= read().finally(() => (reading = undefined)));
    return state.fields;
  }

  /** Reads what is stored now. Resolves to false if another request has destroyed the session; then the changes are dropped. */
  async function read(): Promise<boolean> {
    const { id } = state;
    const readAt = thisMoment();
    const fields = id === undefined ? null : await engine.read(id);
    // In the meantime, this request has destroyed the session, or loaded another one.
    if (state.id !== id) return true;
    if (fields) setFields(fields, readAt);
    else if (state.fields) {
      drop('destroyed');
      return false;
    }
    // A new session never gets an id that the backend does not know, because it may come from an attacker.
    else if (state.is === 'unread')
      state = { is: 'absent', id: changes.size > 0 ? createSessionId() : undefined, unknownId: id };
    return true;
  }

  /** Records that the session is stored with these fields. */
  function setFields(fields: SessionFields, readAt: Moment): void {
    if (state.fields) Object.assign(state, { fields, readAt });
    else state = { is: 'live', id: state.id!, fields, readAt };
  }

  /** Does the work of `commit`. */
  async function storeAll(): Promise<string | undefined> {
    while (pendingUpdates.size > 0) await Promise.allSettled(pendingUpdates);
    if (state.is === 'moving') await move(state);
    if (changes.size > 0) await storeChanges();
    for (const id of idsToDestroy ?? []) await engine.destroy(id);
    if (state.is !== 'absent') {
      const renews = wrote && cookie.maxAge !== undefined;
      return state.id !== cookieId || renews ? setCookie(state.id) : undefined;
    }
    // Clear the cookie only if this request has called `destroy`. A session that was not found may be found later, because some backends
    // return a write only after a delay. And if another request has destroyed the session, the user may have signed in again since. Then
    // clearing the cookie would sign them out.
    return idsToDestroy && cookieId !== undefined ? setCookie('') : undefined;
  }

  function setCookie(value: string): string {
    return writeCookie(cookie, value, request !== undefined && isLocalDevelopment(request.url));
  }

  /** Moves the session to its new id, together with the changes of this request. */
  async function move(moving: Moving): Promise<void> {
    const { id: from, to, failure } = moving;
    const before = new Map(moving.fields);
    const fields = withChanges(before);
    const unset = [...changes.keys()].filter((key) => changes.get(key) === null);
    const readAt = thisMoment();
    moving.mayExist = true;
    // Store the session under the new id before destroying it under the old one. So a failure in between loses nothing.
    await engine.patch(to, { set: fields, unset, created: moving.fields.created ?? null });
    const finalContents = await (failure ? destroyAgain(engine, from, failure) : engine.destroy(from)).catch(
      (error: unknown) => {
        if (!failure || isAmbiguous(error)) moving.failure = error;
        throw error;
      },
    );
    if (finalContents === 'destroyed' || (finalContents === null && !mayRestore(moving.readAt, engine.timeoutMs))) {
      // Another request had destroyed the session. Keep only the changes of this request, in a new session with another id.
      await engine.destroy(to);
      report(finalContents === null ? 'stale-write' : 'destroyed-write', driver);
      state = { is: 'absent' };
      return;
    }
    // Apply what other requests stored under the old id after this request had read it.
    const latest = unexpired(finalContents ?? before);
    for (const key of new Set([...before.keys(), ...latest.keys()])) {
      if (!changes.has(key) && latest.get(key) !== before.get(key)) changes.set(key, latest.get(key) ?? null);
    }
    state = { is: 'live', id: to, fields, readAt };
    wrote = true;
  }

  /** Stores what this request has changed, and nothing else. */
  async function storeChanges(): Promise<void> {
    const fields = state.fields;
    const mayHaveAnyKey = state.is === 'unread' || (state.is === 'absent' && state.mayExist);
    const mayHave = (key: string): boolean =>
      mayHaveAnyKey || fields?.get(key) !== undefined || (fields?.unopened?.(key).size ?? 0) > 0;
    const set: Fields = new Map();
    const unset: string[] = [];
    for (const [key, field] of changes) {
      if (field !== null && fields?.get(key) !== field) set.set(key, field);
      if (field === null && mayHave(key)) unset.push(key);
    }
    if (set.size + unset.length === 0 || (await isDestroyed())) return;
    const readAt = thisMoment();
    let result = await patch(set, unset);
    if (result === 'missing' && !state.fields) {
      // A new session never gets an id that the backend does not know, because it may come from an attacker.
      if (set.size === 0) return;
      state = { is: 'absent' };
      result = await patch(set, unset);
    }
    if (result !== 'applied') return drop(result);
    if (state.is === 'absent' && state.mayExist) setFields(withCreated(set), readAt);
    wrote = true;
  }

  /** Stores the result of an update. Resolves to false if another request has changed the value, so that the update must be repeated. */
  async function storeUpdate(key: string, before: string | null, after: string | null): Promise<boolean> {
    if (after === before || (await isDestroyed())) return true;
    const set: Fields = new Map(after === null ? [] : [[key, after]]);
    const id = (state.id ??= createSessionId());
    const readAt = thisMoment();
    const result = await patch(set, after === null ? [key] : [], new Map([[key, before]]));
    if (result === 'conflict') return false;
    if (result !== 'applied') drop(result, id);
    // If the id differs, this request has destroyed the session in the meantime, or loaded another one.
    else if (state.id === id) {
      setFields(withField(state.fields ?? withCreated(new Map()), key, after), readAt);
      wrote = true;
    }
    return true;
  }

  /** The fields of the session that this request has created. */
  function withCreated(fields: Fields): SessionFields {
    return Object.assign(fields, { created: state.is === 'absent' ? state.created : undefined });
  }

  /** Changes the stored session, or creates one. If the backend has lost the session, restores the fields that this request has read. */
  async function patch(set: Fields, unset: string[], expect?: Map<string, string | null>): Promise<PatchResult> {
    const id = (state.id ??= createSessionId());
    const mustExist = state.is !== 'absent';
    if (state.is === 'absent') {
      state.mayExist = true;
      state.created ??= createdAt(Date.now());
    }
    const { fields } = state;
    const untouched = fields ? expiriesExcept(fields, new Set([...set.keys(), ...unset])) : [];
    const expectUnopened = expect && fields?.unopened?.([...expect.keys()][0]!);
    const created = state.is === 'absent' ? state.created : undefined;
    const change = { set, unset, untouched, mustExist, created, ...(expect && { expect, expectUnopened }) };
    const result = await engine.patch(id, change);
    if (result !== 'missing' || state.id !== id || !state.fields || !mayRestore(state.readAt, engine.timeoutMs))
      return result;
    // This request has read the session so recently that, if it had been destroyed since, its tombstone would still exist. So the backend
    // has lost it.
    const lost = { ifAbsent: unexpired(state.fields), created: state.fields.created ?? null };
    if (expect) {
      const restored = await engine.patch(id, { set: new Map(), ...lost });
      return restored === 'applied' ? 'conflict' : restored;
    }
    for (const key of unset) lost.ifAbsent.delete(key);
    return engine.patch(id, { set, ...lost });
  }

  /** Resolves to whether another request has destroyed the session of the cookie. Then the changes of this request are dropped. */
  async function isDestroyed(): Promise<boolean> {
    if (state.is !== 'absent' || state.unknownId === undefined) return false;
    const { unknownId } = state;
    const result = await engine.patch(unknownId, { set: new Map(), mustExist: true });
    // If the id differs, a concurrent update has already found out.
    if (state.unknownId === unknownId) {
      state.unknownId = undefined;
      if (result === 'destroyed') drop(result);
    }
    return result === 'destroyed';
  }

  /** The session as this request sees it: the stored fields with the changes of this request, without expired fields. */
  function withChanges(stored: Iterable<[string, string]> = []): Fields {
    const fields: Fields = new Map(stored);
    for (const [key, field] of changes) {
      if (field === null) fields.delete(key);
      else fields.set(key, field);
    }
    return unexpired(fields);
  }

  /** Forgets the session and all changes of it. */
  function forget(): void {
    state = { is: 'absent' };
    changes.clear();
    decoded.clear();
  }

  /** Reports that a write was dropped. If this request still uses the session with this id, it forgets that session. */
  function drop(result: PatchResult, id = state.id): void {
    report(result === 'missing' ? 'stale-write' : 'destroyed-write', driver);
    if (state.id === id) forget();
  }

  function assertOpen(): void {
    if (!committing) return;
    const message =
      'The session was changed after commit(), so the change would be lost. Commit when all work is done.';
    throw createError(driver, 'committed', message);
  }

  function assertKey(key: unknown): void {
    if (typeof key === 'string' && key !== '') return;
    const message = 'Session keys must be non-empty strings. Nothing was stored.';
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
      // Cut the path at the key of a Map, because keys of a Map are data. Property names come from code.
      const path = (cause as { path?: string }).path?.replace(/\.get\(.*/s, '.get(…)');
      const message =
        `The value of \`${key}\` cannot be stored${path ? `, because of the part at ${path}` : ''}. ` +
        'Supported values: https://github.com/sveltejs/devalue';
      throw createError(driver, 'invalid-data', message, { cause });
    }
  }

  function decode(key: string, field: string | null | undefined): unknown {
    if (field === null || field === undefined || isExpired(expiryOf(field), Date.now())) return undefined;
    const cached = decoded.get(key);
    if (cached?.field === field) return cached.value;
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
