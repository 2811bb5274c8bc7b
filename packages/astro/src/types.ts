/** What `locals.sessions` offers. Everything is lazy: the backend is asked only when a method is called. */
export interface RequestSessions {
  /**
   * Describes the stored session of this request. However often it is called, it reads one session once.
   *
   * @returns null when the visitor has no session, and for a session that this request creates: Astro stores it after the response.
   * @throws {SessionDriverError} `configuration` if the site has no Coatcheck driver; otherwise if the backend failed.
   * @example
   * const session = await Astro.locals.sessions.current();
   */
  current(): Promise<CurrentSession | null>;
  /**
   * Whether the session that this request came with, and has used, is gone by now: another request has destroyed or regenerated it, or it
   * has expired. Asks the backend at each call, so that a long request can find out. False, without asking, if this request has not used
   * its session yet, or has destroyed or regenerated it itself. Opens Astro's session, so do not call it before `Astro.rewrite()`: Astro loses the
   * cookie of a session that was opened before a rewrite.
   *
   * @throws {SessionDriverError} as `current()`.
   * @example
   * if (await locals.sessions.destroyed()) return new Response(null, { status: 401 });
   */
  destroyed(): Promise<boolean>;
}

/** A stored session, without its data and without its id. Safe to show and to log. */
export interface CurrentSession {
  /** Identifies the session. Nobody can use it to open the session. `regenerate()` changes it. */
  handle: string;
  /**
   * When the session was created, by the server's clock. `regenerate()` does not change it, except if the same request also sets or deletes
   * all keys of the session: then it counts as a new session. Null if it is unknown: the session was migrated from another driver, or
   * restored after the backend had lost it.
   */
  created: Date | null;
  /**
   * When the session expires if nobody uses it anymore. Null if it never expires, and if only the backend knows: set `session.ttl` in
   * `astro.config`, and it is known.
   */
  expires: Date | null;
}

/**
 * The part of a Standard Schema (https://standardschema.dev) that types need. Zod, Valibot, ArkType and others implement it.
 */
export interface SchemaLike {
  readonly '~standard': { readonly types?: { readonly output: unknown } | undefined };
}

/**
 * The session data that a module of schemas describes: an object with a Standard Schema for each key.
 *
 * @example
 * type Data = SessionDataOf<{ cart: typeof cartSchema }>;
 */
export type SessionDataOf<Schemas> = {
  [Key in keyof Schemas]: Schemas[Key] extends { readonly '~standard': { readonly types?: infer Types } }
    ? NonNullable<Types> extends { readonly output: infer Output }
      ? Output
      : unknown
    : never;
};
