/** A session driver at runtime. Structurally the same as Astro's type of this name. */
export interface SessionDriver {
  /**
   * Reads a session by id. Resolves to a devalue string, to the parsed array, or to null or undefined when there is no session.
   *
   * @throws an error when the backend failed. A failure never reads as a missing session.
   */
  getItem(key: string): Promise<unknown>;
  /**
   * Stores the whole session, as Astro passes it. When the session has been destroyed in the meantime, nothing is stored and the promise
   * still resolves, because Astro has no way to report this to the page.
   */
  setItem(key: string, value: unknown): Promise<void>;
  /** Destroys a session. Late writes cannot bring it back. Destroying a missing session is not an error. */
  removeItem(key: string): Promise<void>;
}

/** The value of `session.driver` in `astro.config`. Structurally the same as Astro's type of this name. */
export interface SessionDriverConfig {
  /** The module that creates the driver when the server runs. */
  entrypoint: string | URL;
  /** The driver's options. They are serialized to JSON when the site is built. */
  // oxlint-disable-next-line typescript/no-explicit-any -- as in Astro: an interface is not assignable to Record<string, unknown>
  config?: Record<string, any> | undefined;
}
