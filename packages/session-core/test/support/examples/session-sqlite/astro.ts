import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { SqliteDriverConfig } from './options.ts';
import sqlite from './runtime.ts';

export default (config?: SqliteDriverConfig): SessionDriver =>
  sqlite(config, { env: getSecret, replaces: import.meta.env.DEV });
