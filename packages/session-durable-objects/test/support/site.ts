import { readFileSync } from 'node:fs';
import type { SiteSpec } from '@coatcheck/test-support/site';

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

/** The code block of the README that contains a text. */
function block(text: string): string {
  const blocks = [...readme.matchAll(/^```[^\n]*\n(.*?)^```/gms)].map(([, code]) => code!);
  return blocks.find((code) => code.includes(text))!;
}

/** The test site with the three files of the README, word for word, except for the options of the driver and for the image service. */
export function objectsSite({
  astro = 7,
  driver = 'durableObjectsDriver()',
  kv = false,
}: { astro?: 6 | 7; driver?: string; kv?: boolean } = {}): SiteSpec {
  const config = block('session: { driver: durableObjectsDriver() }')
    .replace('cloudflare()', `cloudflare({ imageService: 'passthrough' })`)
    .replace('{ durableObjectsDriver }', '{ durableObjectsDriver, fromEnv }')
    .replace(
      'session: { driver: durableObjectsDriver() }',
      `devToolbar: { enabled: false }, session: { driver: ${driver} }`,
    );
  const legacy = `"kv_namespaces": [{ "binding": "SESSION", "id": "sessions" }],`;
  const wrangler = block('"main"').replace('"main"', kv ? `${legacy} "main"` : '"main"');
  return {
    astro: `${astro}-cloudflare`,
    driver,
    // Otherwise Wrangler and Miniflare request things from Cloudflare that no test needs.
    env: { CLOUDFLARE_CF_FETCH_ENABLED: 'false', WRANGLER_SEND_METRICS: 'false', CI: 'true' },
    files: {
      'astro.config.mjs': config,
      'src/worker.ts': block('CoatcheckSession } from'),
      'wrangler.jsonc': wrangler,
    },
  };
}
