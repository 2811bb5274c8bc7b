import { fileURLToPath } from 'node:url';
import { cloudflareTest } from '@cloudflare/vitest-plugin';
import { defineConfig } from 'vitest/config';

// The setup with which users test their own Workers: the tests run in workerd. `vitest-plugin.test.ts` starts it.
export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  plugins: [
    cloudflareTest({
      miniflare: {
        compatibilityDate: '2026-07-30',
        compatibilityFlags: ['nodejs_compat'],
        kvNamespaces: ['SESSION'],
      },
    }),
  ],
  test: { include: ['*.spec.ts'], testTimeout: 20_000 },
});
