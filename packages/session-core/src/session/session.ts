import { expiriesExcept, unexpired, type SessionFields, withField } from '../codec/field-codec.ts';
import { bodyOf, encodeField, expiryOf, isExpired, normalizeExpiry } from '../codec/field.ts';
import { decodeValue, encodeValue } from '../codec/flat.ts';
import { report } from '../contract/diagnostics.ts';
import { createError, isAmbiguous } from '../contract/errors.ts';
import type { Fields, PatchResult } from '../contract/store.ts';
import { type Engine, destroyAgain } from '../engine/engine.ts';
import type { FinalContents } from '../engine/record.ts';
import { mayRestore } from '../engine/may-restore.ts';
import { createSessionId } from '../engine/session-id.ts';
import { type Moment, msSince, thisMoment } from '../platform/clock.ts';
import { isLocalDevelopment, type SessionCookie, writeCookie } from './cookie.ts';

export interface SetOptions {
  /** How long the value lives, in seconds. Default: the `ttl` of `createSessions`. */
  ttl?: number | undefined;
}

type Key<Data> = keyof Data & string;

/** One visitor's session during one request. Methods have the names and the meaning of Astro's. */
export interface Session<Data extends object = Record<string, unknown>> {
  /** The value, or undefined when there is none or it has expired. Changing it in place saves nothing: `set` it again. */
  get<Name extends Key<Data>>(key: Name): Promise<Data[Name] | undefined>;
  has(key: Key<Data>): Promise<boolean>;
  keys(): Promise<Key<Data>[]>;
  values(): Promise<Data[Key<Data>][]>;
  entries(): Promise<[Key<Data>, Data[Key<Data>]][]>;
  /** Stores a value as it is at this moment, when `commit` is called. Throws at once for a value that cannot be stored. */
  set<Name extends Key<Data>>(key: Name, value: Data[Name], options?: SetOptions): void;
  delete(key: Key<Data>): void;
  /**
   * Changes one value by what it is now, and loses no change that others make at the same time: `change` may run several times. Stored
   * when the promise resolves, before `commit`, unless this request has set or deleted the key itself; resolves to the new value. What
   * `change` answers with undefined is deleted. Rejects when others were faster until the driver's deadline, and when `change` throws.
   * In a session that is removed meanwhile the change is dropped, as in `commit`.
   */
  update<Name extends Key<Data>>(
    key: Name,
    change: (value: Data[Name] | undefined) => Data[Name] | undefined | Promise<Data[Name] | undefined>,
    options?: SetOptions,
  ): Promise<Data[Name] | undefined>;
  /** Gives the session a new id, against session fixation: call it when someone signs in. The old id is worthless after `commit`. */
  regenerate(): Promise<void>;
  /** Removes the session when `commit` is called. What is set afterwards begins a new one. */
  destroy(): void;
  /** Continues with the session of that id, if there is one; changes made before are dropped. */
  load(sessionID: string): Promise<void>;
  /** The id, as far as it is known: an id from a cookie may turn out to be unknown to the backend, and is replaced then. */
  readonly sessionID: string | undefined;
  /**
   * Stores what was changed and resolves to the `Set-Cookie` header to send, or to undefined when there is none to send. Changing the
   * session afterwards throws. A session that somebody else removed meanwhile stays removed: the changes are dropped and no cookie is sent,
   * because the browser may have signed in anew by then. Waits for updates that are being stored.
   */
  commit(): Promise<string | undefined>;
}

/** What the sessions of one `createSessions` share. */
export interface SessionContext {
  engine: Engine;
  ttl: number | undefined;
  cookie: SessionCookie & { name: string };
}

const FIRST_PAUSE_MS = 2;
const LONGEST_PAUSE_MS = 50;

export class OpenSession {
  #context: SessionContext;
  #request: { url: string } | undefined;
  /** The id that the browser holds unless a cookie is sent. */
  #cookieId: string | undefined;
  /** The id under which the session lies, or will lie after `commit`. */
  #id: string | undefined;
  /** What the backend holds: undefined while nobody asked, null when there is no session. */
  #stored: SessionFields | null | undefined;
  #knownAt: Moment = thisMoment();
  #reading: Promise<void> | undefined;
  /** What this request did to each key: an encoded field, or null for a deletion. */
  #changes: Map<string, string | null> = new Map();
  #decoded: Map<string, { field: string; value: unknown }> = new Map();
  /** The id that the session had before `regenerate`, where its record still lies. */
  #movesFrom: string | undefined;
  #destroyed: string[] = [];
  /** Whether this request itself removed the session that the browser knows. */
  #isDestroyed = false;
  /** An id of the cookie that the backend does not know: perhaps because somebody else has removed the session. */
  #unknownId: string | undefined;
  /** A new id under which something may be stored, because the write has failed. */
  #attemptedId: string | undefined;
  /** Updates that are being stored. */
  #storing: Set<Promise<boolean>> = new Set();
  /** Why the removal of the session under its previous id has failed. */
  #removalError: unknown;
  /** Whether this request stored anything. */
  #wrote = false;
  #committing: Promise<string | undefined> | undefined;

  constructor(context: SessionContext, cookieId: string | undefined, request: { url: string } | undefined) {
    this.#context = context;
    this.#request = request;
    this.#cookieId = this.#id = context.engine.isSessionId(cookieId) ? cookieId : undefined;
    this.#stored = this.#id === undefined ? null : undefined;
  }

  get sessionID(): string | undefined {
    return this.#id;
  }

  async get(key: string): Promise<unknown> {
    const change = this.#changes.get(key);
    if (change !== undefined) return this.#decode(key, change);
    const stored = this.#stored === undefined ? await this.#load() : this.#stored;
    return this.#decode(key, stored?.get(key));
  }

  async has(key: string): Promise<boolean> {
    const field = this.#changes.has(key) ? this.#changes.get(key) : (await this.#load())?.get(key);
    return typeof field === 'string' && !isExpired(expiryOf(field), Date.now());
  }

  async keys(): Promise<string[]> {
    return [...(await this.#current()).keys()];
  }

  async values(): Promise<unknown[]> {
    return (await this.entries()).map(([, value]) => value);
  }

  async entries(): Promise<[string, unknown][]> {
    const fields = [...(await this.#current())];
    const entries = fields.map(([key, field]): [string, unknown] => [key, this.#decode(key, field)]);
    // A corrupt field has no entry; a value that is undefined has.
    return entries.filter(([key]) => this.#decoded.has(key));
  }

  set(key: string, value: unknown, options?: SetOptions): void {
    this.#assertOpen();
    this.#assertKey(key);
    this.#changes.set(key, this.#encode(key, value, options));
    this.#id ??= createSessionId();
  }

  delete(key: string): void {
    this.#assertOpen();
    this.#assertKey(key);
    this.#changes.set(key, null);
  }

  async update(key: string, change: (value: unknown) => unknown, options?: SetOptions): Promise<unknown> {
    this.#assertOpen();
    this.#assertKey(key);
    if (typeof change !== 'function')
      throw new TypeError('`update` takes a function that makes the new value of the old one.');
    const changed = async (before: string | null): Promise<{ value: unknown; after: string | null }> => {
      const value = await change(this.#decodeFresh(key, before));
      this.#assertOpen();
      return { value, after: value === undefined ? null : this.#encode(key, value, options) };
    };

    for (let own = this.#changes.get(key); own !== undefined; own = this.#changes.get(key)) {
      // The request has overwritten this key already; that is what others will see, whatever they do to it meanwhile.
      const { value, after } = await changed(own);
      if (this.#changes.get(key) !== own) continue;
      this.#changes.set(key, after);
      return value;
    }

    const { engine } = this.#context;
    const begunAt = thisMoment();
    for (let round = 0; ; round++) {
      const before = (await this.#load())?.get(key) ?? null;
      const { value, after } = await changed(before);
      const storing = this.#storeUpdate(key, before, after);
      this.#storing.add(storing);
      const isStored = await storing.finally(() => this.#storing.delete(storing));
      if (isStored) return value;
      if (msSince(begunAt) > engine.timeoutMs) {
        const message =
          'Others changed this value again and again until the deadline; the change was not stored. Try again.';
        throw createError(engine.driver, 'timeout', message, { operation: 'update' });
      }
      await pause(round);
      if (!(await this.#read())) return value;
    }
  }

  async regenerate(): Promise<void> {
    this.#assertOpen();
    const stored = await this.#load();
    this.#assertOpen();
    if (stored) this.#movesFrom ??= this.#id;
    // One that no browser has seen is new enough.
    if (this.#id === undefined || this.#id !== this.#attemptedId) this.#id = createSessionId();
    // Somebody who signs in gets a session, whatever became of the one before.
    this.#unknownId = undefined;
  }

  destroy(): void {
    this.#assertOpen();
    const lies = this.#lies();
    if (lies !== undefined && this.#stored !== null) this.#destroyed.push(lies);
    if (this.#attemptedId !== undefined) this.#destroyed.push(this.#attemptedId);
    this.#forget();
    this.#isDestroyed = true;
  }

  async load(sessionID: string): Promise<void> {
    this.#assertOpen();
    this.#forget();
    const readAt = thisMoment();
    const stored = await this.#context.engine.read(sessionID);
    this.#assertOpen();
    if (!stored) return;
    this.#id = sessionID;
    this.#know(stored, readAt);
  }

  commit(): Promise<string | undefined> {
    this.#committing ??= this.#commit().catch((error: unknown) => {
      this.#committing = undefined;
      throw error;
    });
    return this.#committing;
  }

  async #commit(): Promise<string | undefined> {
    while (this.#storing.size > 0) await Promise.allSettled(this.#storing);
    if (this.#movesFrom !== undefined) await this.#move(this.#movesFrom);
    else if (this.#changes.size > 0) await this.#storeChanges();
    for (const id of this.#destroyed) await this.#context.engine.destroy(id);
    if (this.#id !== undefined && this.#stored !== null) {
      const renews = this.#wrote && this.#context.cookie.maxAge !== undefined;
      return this.#id !== this.#cookieId || renews ? this.#setCookie(this.#id) : undefined;
    }
    // A session that was merely not found may be found again: not every backend shows at once what was written elsewhere.
    // One that somebody else removed has a worthless id; clearing it could delete the cookie of a sign-in that was answered meanwhile.
    return this.#isDestroyed && this.#cookieId !== undefined ? this.#setCookie('') : undefined;
  }

  #setCookie(value: string): string {
    const isLocal = this.#request !== undefined && isLocalDevelopment(this.#request.url);
    return writeCookie(this.#context.cookie, value, isLocal);
  }

  /** Stores what the request changed, and nothing else. */
  async #storeChanges(): Promise<void> {
    const set: Fields = new Map();
    const unset: string[] = [];
    for (const [key, field] of this.#changes) {
      if (field !== null && this.#stored?.get(key) !== field) set.set(key, field);
      if (field === null && this.#mayHold(key)) unset.push(key);
    }
    if (set.size + unset.length === 0) return;
    if (await this.#isRemoved()) return;
    if (this.#stored !== null) {
      const result = await this.#patch(this.#id!, set, unset);
      if (result === 'destroyed') return this.#drop('destroyed-write');
      if (result === 'applied') {
        this.#wrote = true;
        return;
      }
      // What was read long ago and is gone may have been removed; what was never read is an id that nobody knows.
      if (this.#stored) return this.#drop('stale-write');
      if (set.size === 0) return;
      this.#id = undefined;
      this.#stored = null;
    }
    this.#id ??= createSessionId();
    const begunAt = thisMoment();
    this.#attemptedId = this.#id;
    await this.#context.engine.patch(this.#id, { set, unset });
    this.#attemptedId = undefined;
    this.#know(set, begunAt);
    this.#wrote = true;
  }

  /** Whether something may be stored under a key that this request deletes. */
  #mayHold(key: string): boolean {
    if (this.#stored === undefined || this.#attemptedId !== undefined) return true;
    return this.#stored?.get(key) !== undefined || (this.#stored?.unopened?.(key).size ?? 0) > 0;
  }

  /** Whether the session of the cookie was removed by somebody else; then what this request did is dropped. */
  async #isRemoved(): Promise<boolean> {
    const id = this.#unknownId;
    if (id === undefined) return false;
    const result = await this.#context.engine.patch(id, { set: new Map(), mustExist: true });
    if (this.#unknownId === id) {
      this.#unknownId = undefined;
      if (result === 'destroyed') this.#drop('destroyed-write');
    }
    return result === 'destroyed';
  }

  async #move(from: string): Promise<void> {
    const { engine } = this.#context;
    const id = this.#id!;
    const known = new Map(this.#stored ?? []);
    const fields = await this.#current();
    const begunAt = thisMoment();
    const unset = [...this.#changes].flatMap(([key, field]) => (field === null ? [key] : []));
    this.#attemptedId = id;
    // Written under the new id before the old one goes: a failure in between loses nothing.
    await engine.patch(id, { set: fields, unset });
    const held = await this.#destroyPrevious(from);
    if (held === 'destroyed' || (held === null && !this.#mayRestore())) {
      // Somebody else had removed it: only what this request did itself may live on, under an id of its own.
      await engine.destroy(id);
      report(held === null ? 'stale-write' : 'destroyed-write', engine.driver);
      this.#id = undefined;
      this.#stored = null;
    } else {
      // What landed under the old id since it was read is a change to the new one.
      const last = held ? unexpired(held) : unexpired(known);
      for (const key of new Set([...known.keys(), ...last.keys()])) {
        if (!this.#changes.has(key) && last.get(key) !== known.get(key)) this.#changes.set(key, last.get(key) ?? null);
      }
      this.#know(fields, begunAt);
      this.#wrote = true;
    }
    this.#movesFrom = this.#attemptedId = undefined;
    await this.#storeChanges();
  }

  /** What the session held last under its previous id. */
  async #destroyPrevious(from: string): Promise<FinalContents> {
    const { engine } = this.#context;
    try {
      return await (this.#removalError ? destroyAgain(engine, from, this.#removalError) : engine.destroy(from));
    } catch (error) {
      if (!this.#removalError || isAmbiguous(error)) this.#removalError = error;
      throw error;
    }
  }

  /** Whether the update is done with; false when it has to be made again on what is there now. */
  async #storeUpdate(key: string, before: string | null, after: string | null): Promise<boolean> {
    if (after === before) return true;
    const set: Fields = new Map(after === null ? [] : [[key, after]]);
    const expect = new Map([[key, before]]);
    const begunAt = thisMoment();
    let result: PatchResult;
    if (this.#stored) {
      result = await this.#patch(this.#lies()!, set, after === null ? [key] : [], expect);
    } else {
      if (await this.#isRemoved()) return true;
      this.#id ??= createSessionId();
      this.#attemptedId = this.#id;
      // Nobody else knows the id, but this request may make several updates at once.
      result = await this.#context.engine.patch(this.#id, { set, expect });
      this.#attemptedId = undefined;
    }
    if (result === 'conflict') return false;
    if (result !== 'applied') {
      this.#drop(result === 'destroyed' ? 'destroyed-write' : 'stale-write');
      return true;
    }
    this.#know(withField(this.#stored ?? new Map(), key, after), begunAt);
    this.#wrote = true;
    return true;
  }

  async #patch(id: string, set: Fields, unset: string[], expect?: Map<string, string | null>): Promise<PatchResult> {
    const { engine } = this.#context;
    const untouched = this.#stored ? expiriesExcept(this.#stored, new Set([...set.keys(), ...unset])) : [];
    const expectUnopened = expect && this.#stored?.unopened?.([...expect.keys()][0]!);
    const result = await engine.patch(id, {
      set,
      unset,
      untouched,
      mustExist: true,
      ...(expect && { expect, expectUnopened }),
    });
    if (result !== 'missing' || !this.#stored || !this.#mayRestore()) return result;
    // It was there when this request read it a moment ago, so the backend lost it: what is known of it is put back.
    const ifAbsent: Fields = unexpired(this.#stored);
    if (expect) {
      const restored = await engine.patch(id, { set: new Map(), ifAbsent });
      return restored === 'applied' ? 'conflict' : restored;
    }
    for (const key of unset) ifAbsent.delete(key);
    return engine.patch(id, { set, ifAbsent });
  }

  /** Reads what is stored now. Resolves to false when it was there before: somebody has removed it, and its changes are dropped. */
  async #read(): Promise<boolean> {
    const id = this.#lies();
    const readAt = thisMoment();
    const stored = id === undefined ? null : await this.#context.engine.read(id);
    // Destroyed meanwhile, or another one was loaded.
    if (id !== this.#lies()) return true;
    if (this.#stored && !stored) {
      this.#drop('destroyed-write');
      return false;
    }
    this.#know(stored, readAt);
    // An id that the backend does not know is never adopted.
    if (stored === null) {
      if (id === this.#cookieId) this.#unknownId = id;
      this.#id = this.#changes.size > 0 ? createSessionId() : undefined;
    }
    return true;
  }

  async #load(): Promise<SessionFields | null> {
    if (this.#stored === undefined) await (this.#reading ??= this.#readFirst());
    return this.#stored ?? null;
  }

  async #readFirst(): Promise<void> {
    try {
      await this.#read();
    } finally {
      this.#reading = undefined;
    }
  }

  /** @param at when the backend was asked: what it answered was true then or later. */
  #know(stored: SessionFields | null, at: Moment): void {
    this.#stored = stored;
    this.#knownAt = at;
  }

  /** Whether the backend would still know of a removal since it was last asked. */
  #mayRestore(): boolean {
    return mayRestore(this.#knownAt, this.#context.engine.timeoutMs);
  }

  /** The id under which the session lies in the backend, if it is there. */
  #lies(): string | undefined {
    return this.#movesFrom ?? this.#id;
  }

  /** The session as this request sees it: what is stored and alive, with its own changes. */
  async #current(): Promise<Fields> {
    const fields: Fields = new Map((await this.#load()) ?? []);
    for (const [key, field] of this.#changes) {
      if (field === null) fields.delete(key);
      else fields.set(key, field);
    }
    return unexpired(fields);
  }

  #forget(): void {
    this.#id = this.#movesFrom = undefined;
    this.#stored = null;
    this.#removalError = this.#unknownId = this.#attemptedId = undefined;
    this.#changes.clear();
    this.#decoded.clear();
  }

  #drop(event: 'destroyed-write' | 'stale-write'): void {
    report(event, this.#context.engine.driver);
    this.#forget();
  }

  #assertOpen(): void {
    if (!this.#committing) return;
    const message = 'The session was used after commit(): the change would be lost. Commit when everything is done.';
    throw createError(this.#context.engine.driver, 'committed', message);
  }

  #assertKey(key: unknown): void {
    if (typeof key === 'string' && key !== '') return;
    const message = 'Session keys must be strings that are not empty. Nothing was stored.';
    throw createError(this.#context.engine.driver, 'invalid-data', message);
  }

  #encode(key: string, value: unknown, options: SetOptions | undefined): string {
    const { engine, ttl } = this.#context;
    const seconds = options?.ttl ?? ttl;
    if (seconds !== undefined && (typeof seconds !== 'number' || Number.isNaN(seconds))) {
      const message = `The \`ttl\` of \`${key}\` must be a number of seconds. Nothing was stored.`;
      throw createError(engine.driver, 'invalid-data', message);
    }
    const expires = seconds === undefined ? undefined : normalizeExpiry(Date.now() + seconds * 1000);
    try {
      return encodeField(expires, encodeValue(value));
    } catch (cause) {
      // The keys of a Map are values; names of properties are code.
      const path = (cause as { path?: string }).path?.replace(/\.get\(.*/s, '.get(…)');
      throw createError(
        engine.driver,
        'invalid-data',
        `The value of \`${key}\` cannot be stored${path ? `, because of what is at ${path}` : ''}. ` +
          'What can: https://github.com/sveltejs/devalue',
        { cause },
      );
    }
  }

  /** For someone who may change the value: what others were given or will be given is not touched. */
  #decodeFresh(key: string, field: string | null): unknown {
    this.#decoded.delete(key);
    const value = this.#decode(key, field);
    this.#decoded.delete(key);
    return value;
  }

  #decode(key: string, field: string | null | undefined): unknown {
    if (field === null || field === undefined || isExpired(expiryOf(field), Date.now())) return undefined;
    const known = this.#decoded.get(key);
    if (known?.field === field) return known.value;
    this.#decoded.delete(key);
    try {
      const value = decodeValue(bodyOf(field));
      this.#decoded.set(key, { field, value });
      return value;
    } catch {
      report('corrupt-field', this.#context.engine.driver);
      return undefined;
    }
  }
}

// At random, so that those who collided do not collide again.
function pause(round: number): Promise<void> {
  const longest = Math.min(FIRST_PAUSE_MS * 2 ** round, LONGEST_PAUSE_MS);
  return new Promise((resolve) => setTimeout(resolve, Math.random() * longest));
}
