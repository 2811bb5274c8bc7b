import { createError, missingVariable, type ReadEnv, type Resolved } from '@coatcheck/session-core/driver';
import type { ClusterNode, RedisOptions } from 'ioredis';
import { DRIVER } from './errors.ts';
import { parseRedisUrl, type ParsedUrl, type RedisDriverConfig, type RedisNode, type RedisTls } from './options.ts';

/** Where to connect to, and as whom, in ioredis's words. */
export interface Target {
  /** The server, or the Sentinels to ask for it. */
  server: Pick<
    RedisOptions,
    'host' | 'port' | 'sentinels' | 'name' | 'sentinelUsername' | 'sentinelPassword' | 'sentinelTLS'
  >;
  /** The nodes to ask for the cluster; then `server` is empty. */
  cluster: ClusterNode[] | undefined;
  username: string | undefined;
  password: string | undefined;
  db: number;
  tls: RedisOptions['tls'];
}

/** Throws a `configuration` error where options contradict each other. */
export function checkTogether(config: RedisDriverConfig): void {
  const places = {
    url: config.url,
    host: config.host ?? config.port,
    cluster: config.cluster,
    sentinel: config.sentinel,
  };
  const named = Object.entries(places).flatMap(([name, value]) => (value === undefined ? [] : `\`${name}\``));
  if (named.length > 1) fail(`${named.join(' and ')} each say where Redis is. Leave all but one out.`);
  if (config.sentinel && !(config.sentinel.name && config.sentinel.nodes))
    fail('`sentinel` needs a `name` and `nodes`.');
  for (const node of [nodesOf(config.cluster), nodesOf(config.sentinel?.nodes)].flat()) {
    if (typeof node !== 'string' && !node?.host) fail('Every node needs a `host`.');
  }
  if (config.cluster !== undefined && (config.db ?? 0) !== 0) fail('A cluster has no `db`. Leave it out.');
}

// What a variable stands for is looked at when it has been read.
function nodesOf(nodes: RedisDriverConfig['cluster']): readonly (RedisNode | string)[] {
  return Array.isArray(nodes) ? nodes : [];
}

export function targetOf(options: Resolved<RedisDriverConfig>, env: ReadEnv): Target {
  checkTogether(options);
  const { cluster, sentinel } = options;
  const url = urlOf(options, env);
  return {
    server: sentinel
      ? {
          name: sentinel.name as string,
          sentinels: sentinel.nodes as { host: string; port?: number }[],
          ...(sentinel.username !== undefined && { sentinelUsername: sentinel.username as string }),
          ...(sentinel.password !== undefined && { sentinelPassword: sentinel.password as string }),
          sentinelTLS: tlsOf(sentinel.tls as boolean | RedisTls | undefined),
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

/** Where Redis is, for people to read: no user, no password. */
export function placeOf({ server, cluster }: Target): string {
  const list = (nodes: Address[], usualPort: number): string =>
    nodes.map(({ host, port = usualPort }) => `${host}:${port}`).join(', ');
  if (cluster) return `the cluster of ${list(cluster as Address[], 6379)}`;
  if (server.sentinels) return `the master \`${server.name}\` of the Sentinels ${list(server.sentinels, 26_379)}`;
  return list([server], 6379);
}

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

function tlsOf(tls: boolean | RedisTls | undefined): RedisOptions['tls'] {
  return typeof tls === 'object' ? (tls as RedisOptions['tls']) : tls ? {} : undefined;
}

function fail(message: string): never {
  throw createError(DRIVER, 'configuration', message);
}
