import { createError, missingVariable, type ReadEnv, type Resolved } from '@coatcheck/session-core/driver';
import type { PoolConfig } from 'pg';
import { DRIVER } from './errors.ts';
import { configKinds, type PostgresDriverConfig } from './options.ts';

/** libpq's variables, by the option of pg. */
const LIBPQ = {
  host: 'PGHOST',
  port: 'PGPORT',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  database: 'PGDATABASE',
} as const;

/** The environment variables that say where PostgreSQL is. */
export const VARIABLES: string[] = ['DATABASE_URL', ...Object.values(LIBPQ)];

/**
 * Where to connect, in the form of pg's options.
 *
 * @throws {SessionDriverError} `configuration` if neither `url` nor an environment variable says where PostgreSQL is, or if it is wrong.
 */
export function targetOf({ url, tls, maxConnections }: Resolved<PostgresDriverConfig>, env: ReadEnv): PoolConfig {
  const raw = url ?? env('DATABASE_URL');
  const parts = Object.entries(LIBPQ).flatMap(([name, variable]) => (env(variable) ? [[name, env(variable)]] : []));
  if (!raw && parts.length === 0) throw missingVariable(DRIVER, 'DATABASE_URL', 'url');
  return {
    ...(raw ? { connectionString: withoutWarning(url ?? checked(raw), tls !== undefined) } : Object.fromEntries(parts)),
    ...(tls !== undefined && { ssl: tls as PoolConfig['ssl'] }),
    max: maxConnections ?? 10,
  };
}

/**
 * The URL with the `sslmode` that pg uses for it. pg checks the certificate in each mode that uses TLS, and logs a warning for each one but
 * `verify-full`.
 */
function withoutWarning(raw: string, ignoresMode: boolean): string {
  const url = new URL(raw);
  const mode = url.searchParams.get('sslmode');
  if (ignoresMode) url.searchParams.delete('sslmode');
  else if (/^(?:prefer|require|verify-ca)$/.test(mode ?? '')) url.searchParams.set('sslmode', 'verify-full');
  return url.href;
}

/** The value of DATABASE_URL. */
function checked(raw: string): string {
  try {
    return configKinds.url.read(raw);
  } catch (error) {
    throw createError(DRIVER, 'configuration', `DATABASE_URL: ${(error as Error).message}.`);
  }
}
