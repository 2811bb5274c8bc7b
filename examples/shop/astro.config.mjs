import node from '@astrojs/node';
import { memoryDriver } from '@coatcheck/session-memory';
import { redisDriver } from '@coatcheck/session-redis';
import { defineConfig } from 'astro/config';

export default defineConfig({
  output: 'server',
  adapter: node({ mode: 'standalone' }),
  session: { driver: process.env.SHOP_DRIVER === 'memory' ? memoryDriver() : redisDriver() },
});
