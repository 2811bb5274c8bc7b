interface WorkersModule {
  waitUntil?(promise: Promise<unknown>): void;
}

// Not imported, so that core also loads where there is no such module. A Worker has it with the flag `nodejs_compat`.
const workers: WorkersModule | undefined = globalThis.process?.getBuiltinModule?.('cloudflare:workers');

/**
 * Sees to it that an operation comes to its end where the runtime drops what is under way when a request is answered or cancelled, as
 * Cloudflare's does: Astro does not wait for the session that `regenerate()` removes.
 */
export function waitUntil<Result>(operation: Promise<Result>): Promise<Result> {
  workers?.waitUntil?.(operation.catch(() => undefined));
  return operation;
}
