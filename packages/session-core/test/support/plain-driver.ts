import type { SessionDriver } from '@coatcheck/session-core';

/** A driver of whole sessions, in memory. */
export interface PlainDriver extends SessionDriver {
  /** The stored sessions, by id. */
  payloads: Map<string, string>;
}

/** A driver like the one in Astro's documentation: it stores whole sessions, and the last write wins. */
export function plainDriver(): PlainDriver {
  const payloads = new Map<string, string>();
  return {
    payloads,
    async getItem(id) {
      return payloads.get(id) ?? null;
    },
    async setItem(id, payload) {
      payloads.set(id, payload as string);
    },
    async removeItem(id) {
      payloads.delete(id);
    },
  };
}
