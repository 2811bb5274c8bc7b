import type { SessionStore, StoreCall } from './store.ts';

/** The store that a driver opens, with access to the sessions that Astro's own driver left in the same backend. */
export interface DriverStore extends SessionStore {
  /** Used by the option `migrateFrom`. Absent when Astro has no driver for this backend. */
  readonly legacySessions?: LegacySessions;
}

/**
 * Access to the sessions that Astro's own driver left in a backend. `id` is the session id and always a UUID, because Astro's driver uses
 * it as part of the key without hashing it. `base` is the option of that name of Astro's driver; undefined when it is not set.
 */
export interface LegacySessions {
  /** Resolves to the payload as Astro wrote it, as a string or parsed; to null or undefined when there is none. */
  read(id: string, base: string | undefined, call: StoreCall): Promise<unknown>;
  /** Removes a session. Called only after `read` has found one under this id. Removing a missing session is not an error. */
  remove(id: string, base: string | undefined, call: StoreCall): Promise<void>;
}

/**
 * The key under which Astro's own drivers store a session. They are built on unstorage, which joins the parts of a key with colons.
 *
 * @param base the option `base` of Astro's driver.
 */
export function legacyKey(id: string, base = ''): string {
  const folder = base.replace(/[:/\\]+/g, ':').replace(/^:|:$/g, '');
  return folder === '' ? id : `${folder}:${id}`;
}
