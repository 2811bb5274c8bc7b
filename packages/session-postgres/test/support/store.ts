import type { DriverStore } from '@coatcheck/session-core/driver';
import { startPgBouncer } from '@coatcheck/test-support/pgbouncer';
import { sharedPostgres } from '@coatcheck/test-support/postgres-server';
import { Client } from 'pg';
import { afterAll, onTestFinished } from 'vitest';
import type { PostgresRuntimeConfig } from '../../src/options.ts';
import { openStore as open } from '../../src/store.ts';

/** A store as the driver opens it, for tests that need no engine around it. The test closes it. */
export async function openStore(config: PostgresRuntimeConfig, timeoutMs = 60_000): Promise<DriverStore> {
  const store = await open(config as never, { env: () => undefined, timeoutMs });
  onTestFinished(async () => store.close?.().catch(() => undefined));
  return store;
}

/** An empty database of the server that the tests of this file share. */
export async function newDatabase(): Promise<string> {
  return (await sharedPostgres()).createDatabase();
}

/** An empty database, and its URL through PgBouncer in transaction mode, which runs until the tests of the file have ended. */
export async function newBouncedDatabase(): Promise<{ direct: string; url: string }> {
  const bouncer = await startPgBouncer((await sharedPostgres()).port);
  afterAll(() => bouncer[Symbol.asyncDispose]());
  const direct = await newDatabase();
  return { direct, url: direct.replace(/:\d+\//, `:${bouncer.port}/`) };
}

/** Runs statements as the superuser, and resolves to the rows of the last one. */
export async function sql(url: string, text: string, values?: unknown[]): Promise<Record<string, unknown>[]> {
  return (await sharedPostgres()).query(text, values, url);
}

/** A connection of its own, for a transaction that holds locks. The test closes it. */
export async function openClient(url: string): Promise<Client> {
  const client = new Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}
