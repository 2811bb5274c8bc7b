import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // Nothing here is a timed test: a slow machine is no failure.
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // Deadlines of real sites are measured here, and machines of CI pause; what had to be run twice is shown.
    retry: process.env['CI'] ? 1 : 0,
    globalSetup: 'test/support/redis-server.ts',
    include: ['packages/*/test/**/*.test.ts', 'test/**/*.test.ts'],
    exclude: ['**/node_modules/**', 'test/apps/**'],
  },
});
