import type { SessionDriver } from '@coatcheck/session-core';

export interface PlainDriver extends SessionDriver {
  /** Every session that it holds, by id. */
  payloads: Map<string, string>;
}

/** The driver that Astro's own documentation would write: whole sessions, the last write wins, and nothing more. */
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
