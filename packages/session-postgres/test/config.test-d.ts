import type { Pool } from 'pg';
import type { Sql } from 'postgres';
import type { PGlite } from '@electric-sql/pglite';
import type { NeonQueryFunction, Pool as NeonPool } from '@neondatabase/serverless';
import { createTableSql, fromEnv, postgresDriver } from '@coatcheck/session-postgres';
import postgres from '@coatcheck/session-postgres/runtime';

declare const clients: {
  pool: Pool;
  postgresJs: Sql;
  pglite: PGlite;
  neon: NeonQueryFunction<false, false>;
  neonPool: NeonPool;
};

postgresDriver();
postgresDriver({ url: process.env['DATABASE_URL'], ttl: false, timeout: fromEnv('TIMEOUT') });
postgresDriver({ tls: { ca: fromEnv('CA'), rejectUnauthorized: false }, maxConnections: fromEnv('CONNECTIONS') });
postgresDriver({ table: fromEnv('TABLE'), createTable: false });
for (const client of Object.values(clients)) postgres({ client, table: 'app.sessions' });
createTableSql('app.sessions').trim();

// @ts-expect-error there is no such option
postgresDriver({ hots: 'h' });
// @ts-expect-error a client exists only on the server
postgresDriver({ client: clients.pool });
// @ts-expect-error a client has a method for statements
postgres({ client: {} });
