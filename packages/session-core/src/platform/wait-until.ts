interface WorkersModule {
  waitUntil?(promise: Promise<unknown>): void;
}

// Not a static import, so that this module also loads outside of Cloudflare. A Worker has the module with the flag `nodejs_compat`.
const workers: WorkersModule | undefined = globalThis.process?.getBuiltinModule?.('cloudflare:workers');

/**
 * Keeps a Cloudflare Worker running until an operation has settled, and returns the operation. Without this, the runtime stops pending work
 * when the request is answered or canceled, and Astro does not wait for the old session to be removed in `regenerate()`. Elsewhere it does
 * nothing.
 */
export function waitUntil<Result>(operation: Promise<Result>): Promise<Result> {
  workers?.waitUntil?.(operation.catch(() => undefined));
  return operation;
}
