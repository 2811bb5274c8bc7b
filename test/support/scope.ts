import type { SiteSpec } from './site.ts';

// The scope of a test run. `pnpm test` tests everything once. `pnpm test:all` also tests the older Astro, every unstorage driver, including
// those of Astro, and every package manager.

/** Test files that run only in `pnpm test:all`. */
export const repeatedFiles: string[] = [
  // Runs KV's conformance tests again, inside of the tests of a user's Worker.
  'packages/session-cloudflare-kv/test/vitest-plugin.test.ts',
  // Runs the conformance tests of PostgreSQL again, through PgBouncer.
  'packages/session-postgres/test/pgbouncer-conformance.test.ts',
  // Runs `pnpm faults:load` for a few seconds. Single outages are in `outages.test.ts`.
  'test/faults.test.ts',
  // Tests the test harness on Astro's own drivers, without our packages.
  'test/harness.test.ts',
];

export const everything: boolean = process.env['COATCHECK_TESTS'] === 'all';

/** The versions of Astro for which sites are built. */
export const astros: readonly Extract<SiteSpec['astro'], number>[] = everything ? [7, 6] : [7];

/** The items to test: all in `pnpm test:all`, otherwise only those with the given names, which represent the others. */
export function scopeOf<Item>(all: [name: string, item: Item][], chosen: string[]): [name: string, item: Item][] {
  return everything ? all : all.filter(([name]) => chosen.includes(name));
}
