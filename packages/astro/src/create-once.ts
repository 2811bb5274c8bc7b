import type { SessionDriver } from '@coatcheck/session-core';

/** Returns a function that creates the driver once. After a failure, the next call tries again. */
export function createOnce(createDriver: () => Promise<SessionDriver>): () => Promise<SessionDriver> {
  let creating: Promise<SessionDriver> | undefined;
  return () =>
    (creating ??= createDriver().catch((error: unknown) => {
      creating = undefined;
      throw error;
    }));
}
