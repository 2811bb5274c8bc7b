import {
  createError,
  missingVariable,
  type ReadEnv,
  type Resolved,
  type TlsOptions,
} from '@coatcheck/session-core/driver';
import type { ClusterNode, RedisOptions } from 'ioredis';
import {
  DRIVER,
  type ParsedUrl,
  parseRedisUrl,
  type RedisDriverConfig,
  type RedisNode,
  type RedisRuntimeConfig,
} from './options.ts';

/** Where to connect, and as which user, in the form of ioredis's options. */
export interface Target {
  /** The server, or the Sentinels that name it. Empty for a cluster. */
  server: Pick<
    RedisOptions,
    'host' | 'port' | 'sentinels' | 'name' | 'sentinelUsername' | 'sentinelPassword' | 'sentinelTLS'
  >;
  /** Some nodes of the cluster. Undefined if there is no cluster. */
  cluster: ClusterNode[] | undefined;
  /** Undefined: Redis's user `default`. */
  username: string | undefined;
  password: string | undefined;
  db: number;
  /** Undefined: no TLS. */
  tls: RedisOptions['tls'];
}

/**
 * Checks options that depend on each other. An option with `fromEnv` counts as set.
 *
 * @throws {SessionDriverError} `configuration` if options contradict each other, or if a part of `sentinel` or a host is missing.
 */
export function checkTogether(config: RedisRuntimeConfig): void {
  const locations = {
    client: config.client,
    url: config.url,
    host: config.host ?? config.port,
    cluster: config.cluster,
    sentinel: config.sentinel,
  };
  const given = Object.entries(locations).flatMap(([name, value]) => (value === undefined ? [] : `\`${name}\``));
  if (given.length > 1) fail(`${given.join(' and ')} each say where Redis is. Remove all but one.`);
  if (config.sentinel && !(config.sentinel.name && config.sentinel.nodes))
    fail('`sentinel` needs a `name` and `nodes`.');
  for (const node of [literalNodes(config.cluster), literalNodes(config.sentinel?.nodes)].flat()) {
    if (typeof node !== 'string' && !node?.host) fail('Every node needs a `host`.');
  }
  if (config.cluster !== undefined && (config.db ?? 0) !== 0) fail('A cluster has no `db`. Leave it out.');
}

/** The nodes of a list. Empty for `fromEnv`: those nodes are checked when the variable has been read. */
function literalNodes(nodes: RedisDriverConfig['cluster']): readonly (RedisNode | string)[] {
  return Array.isArray(nodes) ? nodes : [];
}

/**
 * The target that the options and the environment name.
 *
 * @param options options that `checkTogether` has checked.
 * @throws {SessionDriverError} `configuration` if `REDIS_URL` is needed, and is missing or invalid.
 */
export function targetOf(options: Resolved<RedisDriverConfig>, env: ReadEnv): Target {
  const { cluster, sentinel } = options;
  const url = urlOf(options, env);
  return {
    server: sentinel
      ? {
          name: sentinel.name as string,
          sentinels: sentinel.nodes as { host: string; port?: number }[],
          ...(sentinel.username !== undefined && { sentinelUsername: sentinel.username as string }),
          ...(sentinel.password !== undefined && { sentinelPassword: sentinel.password as string }),
          sentinelTLS: tlsOf(sentinel.tls as boolean | TlsOptions | undefined),
        }
      : cluster
        ? {}
        : { host: options.host ?? url?.host ?? 'localhost', port: options.port ?? url?.port ?? 6379 },
    cluster: cluster?.map((node) => ({ port: 6379, ...(node as RedisNode) }) as ClusterNode),
    username: options.username ?? url?.username,
    password: options.password ?? url?.password,
    db: options.db ?? url?.db ?? 0,
    tls: tlsOf(options.tls ?? url?.tls),
  };
}

interface Address {
  host?: string | undefined;
  port?: number | undefined;
}

/** The address of Redis for error messages, without credentials. */
export function describeTarget({ server, cluster }: Target): string {
  const list = (nodes: Address[], defaultPort: number): string =>
    nodes.map(({ host, port = defaultPort }) => `${host}:${port}`).join(', ');
  if (cluster) return `the cluster of ${list(cluster as Address[], 6379)}`;
  if (server.sentinels) return `the master \`${server.name}\` of the Sentinels ${list(server.sentinels, 26_379)}`;
  return list([server], 6379);
}

/** The parts of the URL in `url` or `REDIS_URL`. Undefined if other options say where Redis is. */
function urlOf(options: Resolved<RedisDriverConfig>, env: ReadEnv): ParsedUrl | undefined {
  if (options.url !== undefined) return parseRedisUrl(options.url);
  if (options.host ?? options.port ?? options.cluster ?? options.sentinel) return undefined;
  const raw = env('REDIS_URL');
  if (!raw) throw missingVariable(DRIVER, 'REDIS_URL', 'url');
  try {
    return parseRedisUrl(raw);
  } catch (error) {
    return fail(`REDIS_URL: ${(error as Error).message}.`);
  }
}

function tlsOf(tls: boolean | TlsOptions | undefined): RedisOptions['tls'] {
  return typeof tls === 'object' ? (tls as RedisOptions['tls']) : tls ? {} : undefined;
}

function fail(message: string): never {
  throw createError(DRIVER, 'configuration', message);
}
