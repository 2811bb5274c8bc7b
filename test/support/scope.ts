import type { SiteSpec } from './site.ts';

// What runs. `pnpm test` proves everything once. `pnpm test:all` proves it again: on the older Astro, on every driver of unstorage, those of
// Astro included, and with every package manager.

/** Files of tests that run there only. */
export const repeatedFiles: string[] = [
  // KV's conformance once more, in the tests of a user's Worker.
  'packages/session-cloudflare-kv/test/vitest-plugin.test.ts',
  // A few seconds of `pnpm faults:load`. Single outages are in `outages.test.ts`.
  'test/faults.test.ts',
  // The instruments, on Astro's own drivers: nothing of ours is in it.
  'test/harness.test.ts',
];

export const everything: boolean = process.env['COATCHECK_TESTS'] === 'all';

/** The versions of Astro that sites are built on. */
export const astros: readonly Extract<SiteSpec['astro'], number>[] = everything ? [7, 6] : [7];

/** Of a list of the same thing several times over: all, or those whose names are chosen to stand for the others. */
export function scopeOf<Item>(all: [name: string, item: Item][], chosen: string[]): [name: string, item: Item][] {
  return everything ? all : all.filter(([name]) => chosen.includes(name));
}
