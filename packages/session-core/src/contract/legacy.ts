import type { SessionStore, StoreCall } from './store.ts';

/** What a driver opens: its store, and where the backend may still hold sessions of Astro's own driver. */
export interface DriverStore extends SessionStore {
  /** For the option `migrateFrom`. Absent where Astro has no driver for this backend. */
  readonly legacySessions?: LegacySessions;
}

/**
 * The sessions that Astro's own driver for a backend left there, by session id, as Astro writes them. `base` is the option of that name of
 * Astro's driver. The id is always a UUID, because it is part of a key as it is. `remove` is called only for what `read` has found to be a
 * session.
 */
export interface LegacySessions {
  /** The payload, as a string or parsed; null or undefined when there is none. */
  read(id: string, base: string | undefined, call: StoreCall): Promise<unknown>;
  /** Removing a missing session is no error. */
  remove(id: string, base: string | undefined, call: StoreCall): Promise<void>;
}

/** The key of a session in the drivers of unstorage, which Astro's own drivers are built on. */
export function legacyKey(id: string, base = ''): string {
  const folder = base.replace(/[:/\\]+/g, ':').replace(/^:|:$/g, '');
  return folder === '' ? id : `${folder}:${id}`;
}
