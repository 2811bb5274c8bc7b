import { isLocalUrl, readCookie, writeCookie, type SessionCookie } from './cookie.ts';
import { RETIRE_MS, type Engine, type SessionFields } from './engine.ts';
import { createError } from './errors.ts';
import { bodyOf, encodeField, expiryOf, isExpired, normalizeExpiry } from './fields.ts';
import { decodeValue, encodeValue } from './flat.ts';
import { engineOfAny } from './foreign.ts';
import { createSessionId, isSessionId } from './ids.ts';
import { report } from './report.ts';
import type { Fields, PatchResult } from './store.ts';
import type { SessionDriver } from './types.ts';

export interface SessionsOptions {
  /** Any driver: a runtime of Coatcheck, or three methods of your own. */
  driver: SessionDriver;
  /** The cookie's name, or its attributes. Default: what Astro does. */
  cookie?: string | SessionCookie;
  /** How long a value lives after it was set, in seconds, unless `set` says otherwise. Default: as long as the driver's `ttl` says. */
  ttl?: number;
}

export interface SetOptions {
  /** How long the value lives, in seconds. Default: the `ttl` of `createSessions`. */
  ttl?: number | undefined;
}

type Key<Data> = keyof Data & string;

export interface Sessions<Data extends object = Record<string, unknown>> {
  /**
   * The session of a request: a `Request`, or the text of its `Cookie` header. Does nothing else: nothing is read before it is asked
   * for, and a visitor without a session who stores nothing costs no call and gets no cookie.
   */
  open(request: Request | string | null | undefined): Session<Data>;
}

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
   * when the promise resolves, before `commit`; resolves to the new value. What `change` answers with undefined is deleted. Rejects when
   * others were faster until the driver's deadline, and when `change` throws.
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
   * session afterwards throws. A session that was removed meanwhile stays removed: the changes are dropped and the cookie is cleared.
   */
  commit(): Promise<string | undefined>;
}

/**
 * Sessions for any server that speaks `Request` and `Response`. Throws a TypeError when the options are wrong.
 *
 * @example
 * const session = sessions.open(request);
 * session.set('cart', ['hat']);
 * const setCookie = await session.commit();
 */
export function createSessions<Data extends object = Record<string, unknown>>(
  options: SessionsOptions,
): Sessions<Data> {
  const { driver, ttl } = options;
  const given = typeof options.cookie === 'string' ? { name: options.cookie } : options.cookie;
  const cookie = { ...given, name: given?.name ?? 'astro-session' };
  if (!/^[\w-]+$/.test(cookie.name)) throw new TypeError('`cookie.name` may hold letters, digits, _ and - only.');
  if (ttl !== undefined && !(ttl > 0)) throw new TypeError('`ttl` must be a positive number of seconds.');
  if (typeof driver?.getItem !== 'function') {
    throw new TypeError(
      '`driver` must be a session driver: call the default export of a runtime, as in `driver: redis()`.',
    );
  }
  const engine = engineOfAny(driver);
  return {
    open(request) {
      const header = typeof request === 'object' && request !== null ? request.headers.get('cookie') : request;
      const isLocal = typeof request === 'object' && request !== null && isLocalUrl(request.url);
      const id = header ? readCookie(header, cookie.name) : undefined;
      return new OpenSession({ engine, ttl, cookie, isLocal }, id) as unknown as Session<Data>;
    },
  };
}

interface Context {
  engine: Engine;
  ttl: number | undefined;
  cookie: SessionCookie & { name: string };
  isLocal: boolean;
}

const FIRST_PAUSE_MS = 2;
const LONGEST_PAUSE_MS = 50;

class OpenSession {
  #context: Context;
  /** The id that the browser holds unless a cookie is sent. */
  #cookieId: string | undefined;
  /** The id under which the session lies, or will lie after `commit`. */
  #id: string | undefined;
  /** What the backend holds: undefined while nobody asked, null when there is no session. */
  #stored: SessionFields | null | undefined;
  #readAt = 0;
  #reading: Promise<void> | undefined;
  /** What this request did to each key: an encoded field, or null for a deletion. */
  #changes: Map<string, string | null> = new Map();
  #decoded: Map<string, { field: string; value: unknown }> = new Map();
  /** The id that the session had before `regenerate`, where its record still lies. */
  #movesFrom: string | undefined;
  #destroyed: string[] = [];
  /** Whether the session that the browser knows is gone because someone wanted it gone. */
  #isGone = false;
  #committing: Promise<string | undefined> | undefined;

  constructor(context: Context, cookieId: string | undefined) {
    this.#context = context;
    this.#cookieId = this.#id = isSessionId(cookieId) ? cookieId : undefined;
    this.#stored = this.#id === undefined ? null : undefined;
  }

  get sessionID(): string | undefined {
    return this.#id;
  }

  async get(key: string): Promise<unknown> {
    const change = this.#changes.get(key);
    return this.#decode(key, change === undefined ? (await this.#load())?.get(key) : change);
  }

  async has(key: string): Promise<boolean> {
    return (await this.#current()).has(key);
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
    // A damaged field has no entry; a value that is undefined has.
    return entries.filter(([key]) => this.#decoded.has(key));
  }

  set(key: string, value: unknown, options?: SetOptions): void {
    this.#assertOpen();
    this.#changes.set(key, this.#encode(key, value, options));
    this.#id ??= createSessionId();
  }

  delete(key: string): void {
    this.#assertOpen();
    this.#changes.set(key, null);
  }

  async update(key: string, change: (value: unknown) => unknown, options?: SetOptions): Promise<unknown> {
    this.#assertOpen();
    const own = this.#changes.get(key);
    if (own !== undefined) {
      // The request has overwritten this key already; that is what others will see, whatever they do to it meanwhile.
      const value = await change(this.#decode(key, own));
      this.#changes.set(key, value === undefined ? null : this.#encode(key, value, options));
      return value;
    }
    const { engine } = this.#context;
    const deadline = Date.now() + engine.timeoutMs;
    for (let round = 0; ; round++) {
      const before = (await this.#load())?.get(key) ?? null;
      this.#decoded.delete(key);
      const value = await change(this.#decode(key, before));
      const set: Fields = new Map(value === undefined ? [] : [[key, this.#encode(key, value, options)]]);
      if (await this.#storeUpdate(key, before, set)) return value;
      if (Date.now() > deadline) {
        const message =
          'Others changed this value again and again until the deadline; the change was not stored. Try again.';
        throw createError(engine.driver, 'timeout', message, { operation: 'update' });
      }
      await pause(round);
      await this.#read();
    }
  }

  async regenerate(): Promise<void> {
    this.#assertOpen();
    if (await this.#load()) this.#movesFrom ??= this.#id;
    this.#id = createSessionId();
  }

  destroy(): void {
    this.#assertOpen();
    const lies = this.#movesFrom ?? this.#id;
    if (lies !== undefined && this.#stored !== null) this.#destroyed.push(lies);
    this.#forget();
  }

  async load(sessionID: string): Promise<void> {
    this.#assertOpen();
    this.#forget();
    this.#isGone = false;
    if (!isSessionId(sessionID)) return;
    this.#id = sessionID;
    await this.#read();
  }

  commit(): Promise<string | undefined> {
    this.#committing ??= this.#commit().catch((error: unknown) => {
      this.#committing = undefined;
      throw error;
    });
    return this.#committing;
  }

  async #commit(): Promise<string | undefined> {
    const wrote = this.#movesFrom === undefined ? await this.#storeChanges() : await this.#move(this.#movesFrom);
    for (const id of this.#destroyed) await this.#context.engine.retire(id);
    const { cookie, isLocal } = this.#context;
    if (this.#id !== undefined && this.#stored !== null) {
      const renews = wrote && cookie.maxAge !== undefined;
      return this.#id !== this.#cookieId || renews ? writeCookie(cookie, this.#id, isLocal) : undefined;
    }
    // A session that was merely not found may be found again: not every backend shows at once what was written elsewhere.
    return this.#isGone && this.#cookieId !== undefined ? writeCookie(cookie, '', isLocal) : undefined;
  }

  /** Stores what the request changed, and nothing else; resolves to whether there was anything to store. */
  async #storeChanges(): Promise<boolean> {
    const set: Fields = new Map();
    const unset: string[] = [];
    for (const [key, field] of this.#changes) {
      if (field !== null && this.#stored?.get(key) !== field) set.set(key, field);
      if (field === null && (this.#stored === undefined || this.#stored?.has(key))) unset.push(key);
    }
    if (set.size + unset.length === 0) return false;
    if (this.#stored !== null) {
      const result = await this.#patch(this.#id!, set, unset);
      if (result === 'applied') return true;
      if (result === 'retired') return this.#dropRetired();
      // What was read long ago and is gone may have been removed; what was never read is an id that nobody knows.
      if (this.#stored) return this.#dropStale();
      if (set.size === 0) return false;
      this.#id = createSessionId();
    }
    await this.#context.engine.patch(this.#id!, { set });
    this.#stored = set;
    return true;
  }

  async #move(from: string): Promise<boolean> {
    const { engine } = this.#context;
    const id = this.#id!;
    const known = this.#stored ?? new Map<string, string>();
    const fields = await this.#current();
    // Written under the new id before the old one goes: a failure in between loses nothing.
    await engine.patch(id, { set: fields });
    const held = await engine.retire(from);
    if (held === 'retired') {
      // Somebody else had removed it: only what this request did itself may live on.
      const own: Fields = new Map([...fields].filter(([key]) => this.#changes.has(key)));
      await engine.retire(id);
      this.#dropRetired();
      if (own.size === 0) return false;
      this.#id = createSessionId();
      this.#stored = own;
      await engine.patch(this.#id, { set: own });
      return true;
    }
    this.#stored = fields;
    if (held === null) return true;
    // What landed under the old id since it was read.
    const isOthers = (key: string): boolean => !this.#changes.has(key);
    const set: Fields = new Map([...living(held)].filter(([key, field]) => isOthers(key) && known.get(key) !== field));
    const unset = [...known.keys()].filter((key) => isOthers(key) && !held.has(key));
    if (set.size + unset.length > 0) await engine.patch(id, { set, unset, untouched: expiries(fields, set, unset) });
    return true;
  }

  /** Whether the update is stored; false when it has to be made again on what is there now. */
  async #storeUpdate(key: string, before: string | null, set: Fields): Promise<boolean> {
    const after = set.get(key) ?? null;
    if (after === before) return true;
    if (this.#stored === null) {
      this.#id ??= createSessionId();
      await this.#context.engine.patch(this.#id, { set });
    } else {
      const unset = after === null ? [key] : [];
      const result = await this.#patch(this.#movesFrom ?? this.#id!, set, unset, new Map([[key, before]]));
      if (result === 'retired') return !this.#dropRetired();
      if (result === 'missing') return !this.#dropStale();
      if (result === 'conflict') return false;
    }
    const stored = new Map(this.#stored);
    if (after === null) stored.delete(key);
    else stored.set(key, after);
    this.#stored = stored;
    return true;
  }

  async #patch(id: string, set: Fields, unset: string[], expect?: Map<string, string | null>): Promise<PatchResult> {
    const { engine } = this.#context;
    const untouched = expiries(this.#stored ?? new Map(), set, unset);
    const result = await engine.patch(id, { set, unset, untouched, mustExist: true, ...(expect && { expect }) });
    if (result !== 'missing' || !this.#stored || Math.abs(Date.now() - this.#readAt) >= RETIRE_MS) return result;
    // It was there when this request read it a moment ago, so the backend lost it: what is known of it is put back.
    const ifAbsent: Fields = living(this.#stored);
    if (expect) {
      const restored = await engine.patch(id, { set: new Map(), ifAbsent });
      return restored === 'applied' ? 'conflict' : restored;
    }
    for (const key of unset) ifAbsent.delete(key);
    return engine.patch(id, { set, ifAbsent });
  }

  async #read(): Promise<void> {
    const id = this.#movesFrom ?? this.#id;
    this.#stored = id === undefined ? null : await this.#context.engine.read(id);
    this.#readAt = Date.now();
    // An id that the backend does not know is never adopted.
    if (this.#stored === null) this.#id = this.#changes.size > 0 ? createSessionId() : undefined;
  }

  async #load(): Promise<SessionFields | null> {
    if (this.#stored === undefined) await (this.#reading ??= this.#read().finally(() => (this.#reading = undefined)));
    return this.#stored ?? null;
  }

  /** The session as this request sees it: what is stored and alive, with its own changes. */
  async #current(): Promise<Fields> {
    const fields: Fields = new Map(await this.#load());
    for (const [key, field] of this.#changes) {
      if (field === null) fields.delete(key);
      else fields.set(key, field);
    }
    return living(fields);
  }

  #forget(): void {
    this.#id = this.#movesFrom = undefined;
    this.#stored = null;
    this.#changes.clear();
    this.#decoded.clear();
    this.#isGone = true;
  }

  #dropRetired(): false {
    report('retired-write', this.#context.engine.driver);
    this.#forget();
    return false;
  }

  #dropStale(): false {
    report('stale-write', this.#context.engine.driver);
    this.#forget();
    return false;
  }

  #assertOpen(): void {
    if (!this.#committing) return;
    const message = 'The session was used after commit(): the change would be lost. Commit when everything is done.';
    throw createError(this.#context.engine.driver, 'committed', message);
  }

  #encode(key: string, value: unknown, options: SetOptions | undefined): string {
    const { engine, ttl } = this.#context;
    if (typeof key !== 'string' || key === '') {
      throw createError(
        engine.driver,
        'invalid-data',
        'Session keys must be strings that are not empty. Nothing was stored.',
      );
    }
    const seconds = options?.ttl ?? ttl;
    const expires = seconds === undefined ? undefined : normalizeExpiry(Date.now() + seconds * 1000);
    try {
      return encodeField(expires, encodeValue(value));
    } catch (cause) {
      const { path } = cause as { path?: string };
      throw createError(
        engine.driver,
        'invalid-data',
        `The value of \`${key}\` cannot be stored${path ? `, because of what is at ${path}` : ''}. ` +
          'What can: https://github.com/sveltejs/devalue',
        { cause },
      );
    }
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
      report('damaged-field', this.#context.engine.driver);
      return undefined;
    }
  }
}

function living(fields: SessionFields): Fields {
  const now = Date.now();
  return new Map([...fields].filter(([, field]) => !isExpired(expiryOf(field), now)));
}

/** The expiries of the fields that a change leaves as they are. */
function expiries(fields: SessionFields, set: Fields, unset: readonly string[]): (number | undefined)[] {
  return [...fields].filter(([key]) => !set.has(key) && !unset.includes(key)).map(([, field]) => expiryOf(field));
}

// At random, so that those who collided do not collide again.
function pause(round: number): Promise<void> {
  const longest = Math.min(FIRST_PAUSE_MS * 2 ** round, LONGEST_PAUSE_MS);
  return new Promise((resolve) => setTimeout(resolve, Math.random() * longest));
}
