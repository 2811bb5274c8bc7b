// The other lane of the race: this very shop, on the driver that Astro brings.
import { defineConfig, sessionDrivers } from 'astro/config';

import shop from './astro.config.mjs';

const { REDIS_URL, SHOP_DRIVER } = process.env;

export default defineConfig({
  ...shop,
  outDir: './dist/race',
  // The integration is for sites on Coatcheck.
  integrations: [],
  // Astro writes the URL into the build.
  session: { driver: SHOP_DRIVER === 'memory' ? sessionDrivers.lruCache() : sessionDrivers.redis({ url: REDIS_URL }) },
});
