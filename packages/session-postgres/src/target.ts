import { checkServerIdentity } from 'node:tls';
import {
  missingVariable,
  readVariable,
  type ReadEnv,
  type Resolved,
  type TlsOptions,
} from '@coatcheck/session-core/driver';
import type { PoolConfig } from 'pg';
import { configKinds, DRIVER, LIBPQ, type PostgresDriverConfig } from './options.ts';
import { parsePostgresUrl } from './url.ts';

/**
 * Where to connect, in the form of pg's options.
 *
 * @throws {SessionDriverError} `configuration` if neither `url` nor an environment variable says where PostgreSQL is, or if it is wrong.
 */
export function targetOf(
  { url, tls, maxConnections }: Resolved<PostgresDriverConfig>,
  env: ReadEnv,
): PoolConfig & { max: number } {
  const raw = url ?? env('DATABASE_URL');
  const parts = Object.entries(LIBPQ).flatMap(([name, variable]) => (env(variable) ? [[name, env(variable)]] : []));
  if (!raw && parts.length === 0) throw missingVariable(DRIVER, 'DATABASE_URL', 'url');
  return {
    ...(raw
      ? {
          connectionString: forPg(url ?? readVariable(DRIVER, configKinds.url, 'DATABASE_URL', raw), tls !== undefined),
        }
      : Object.fromEntries(parts)),
    ...(tls !== undefined && { ssl: tlsOf(tls) }),
    max: maxConnections ?? 10,
  };
}

/** The URL as pg needs it. */
function forPg(raw: string, hasTls: boolean): string {
  const url = parsePostgresUrl(raw);
  const { searchParams: parameters } = url;
  // pg would prefer each of these to its option `ssl`.
  const own = ['ssl', 'sslmode', 'sslcert', 'sslkey', 'sslrootcert', 'uselibpqcompat'];
  if (hasTls) for (const name of own) parameters.delete(name);
  // libpq's name for the certificate authorities that Node trusts anyway. pg would look for a file.
  if (parameters.get('sslrootcert') === 'system') parameters.delete('sslrootcert');
  // pg checks the certificate in each mode that uses TLS, and logs a warning for each one but `verify-full`.
  const isStrict = /^(?:prefer|require|verify-ca)$/.test(parameters.get('sslmode') ?? '');
  if (isStrict && !parameters.has('uselibpqcompat')) parameters.set('sslmode', 'verify-full');
  return url.href;
}

function tlsOf(tls: boolean | TlsOptions): PoolConfig['ssl'] {
  if (typeof tls === 'boolean') return tls;
  const { servername } = tls;
  // A copy, because pg changes it. pg replaces `servername` by the host, unless the host is an address.
  return {
    ...(tls as object),
    ...(typeof servername === 'string' && { checkServerIdentity: (_host, it) => checkServerIdentity(servername, it) }),
  };
}
