import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import type { Reporter } from 'vitest/node';

/** What failed at first is not forgotten because it passed when it was run again. */
const firstFailures: Reporter = {
  onTestCaseResult(test) {
    const result = test.result();
    if (result.state !== 'passed') return;
    for (const { stack, message } of result.errors ?? [])
      console.error(`Failed at first: ${test.fullName}\n${stack ?? message}`);
  },
};

export default defineConfig({
  test: {
    // Nothing here is a timed test: a slow machine is no failure.
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // Deadlines of real sites are measured here, and machines of CI pause.
    retry: process.env['CI'] ? 1 : 0,
    reporters: ['default', firstFailures],
    // Most tests wait for servers, clocks and deadlines: with a file for each core, cores are idle for two thirds of the time.
    maxWorkers: Math.ceil(availableParallelism() * 1.5),
    globalSetup: 'test/support/redis-server.ts',
    include: ['packages/*/test/**/*.test.ts', 'test/**/*.test.ts'],
    exclude: ['**/node_modules/**', 'test/apps/**'],
  },
});
