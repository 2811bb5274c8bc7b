/** Structurally the same as Astro's type of this name: what a driver's runtime returns. */
export interface SessionDriver {
  /** What is stored under an id: a devalue string, the parsed array, or null. Rejects when the backend failed. */
  getItem(key: string): Promise<unknown>;
  /** Stores Astro's whole session. Resolves as well when the session was removed in the meantime: it stays removed. */
  setItem(key: string, value: unknown): Promise<void>;
  /** Removes a session and keeps it removed. A missing one is no error. */
  removeItem(key: string): Promise<void>;
}

/** Structurally the same as Astro's type of this name: what goes into `session.driver` of `astro.config`. */
export interface SessionDriverConfig {
  /** The module that runs with the server. */
  entrypoint: string | URL;
  /** Its options; they pass through JSON when the site is built. */
  // oxlint-disable-next-line typescript/no-explicit-any -- as in Astro: an interface is no Record<string, unknown>
  config?: Record<string, any> | undefined;
}
