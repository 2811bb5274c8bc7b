import node from '@astrojs/node';
import coatcheck from '@coatcheck/astro';
import { memoryDriver } from '@coatcheck/session-memory';
import { redisDriver } from '@coatcheck/session-redis';
import { defineConfig } from 'astro/config';

export default defineConfig({
  output: 'server',
  adapter: node({ mode: 'standalone' }),
  integrations: [coatcheck({ schema: './src/session-schema.ts' })],
  session: { driver: process.env.SHOP_DRIVER === 'memory' ? memoryDriver() : redisDriver() },
});
