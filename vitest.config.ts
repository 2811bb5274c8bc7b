import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { everything, repeatedFiles } from './test/support/scope.ts';

export default defineConfig({
  test: {
    // Nothing here is a timed test: a slow machine is no failure. These limits are for what would hang.
    testTimeout: 200_000,
    hookTimeout: 200_000,
    expect: { poll: { timeout: 60_000 } },
    retry: 0,
    // Most tests wait for servers, clocks and deadlines: with a file for each core, cores are idle for two thirds of the time.
    maxWorkers: Math.ceil(availableParallelism() * 1.5),
    globalSetup: ['test/support/redis-server.ts', 'test/support/postgres-server.ts'],
    include: ['packages/*/test/**/*.test.ts', 'test/**/*.test.ts'],
    exclude: ['**/node_modules/**', 'test/apps/**', ...(everything ? [] : repeatedFiles)],
  },
});
