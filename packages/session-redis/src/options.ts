import {
  type EnvRef,
  type FromEnv,
  group,
  integer,
  list,
  type OptionKind,
  type OptionKinds,
  secretString,
  type SharedOptions,
  string,
  tls,
  type TlsOptions,
} from '@coatcheck/session-core/driver';

export const DRIVER = 'session-redis';

/**
 * The options of `redisDriver()`. Set one of `url`, `host`, `cluster` and `sentinel` to say where Redis is. All other options can be
 * combined with each of them, and override what a URL says.
 */
export interface RedisDriverConfig extends SharedOptions {
  /**
   * The URL of Redis: `redis://user:password@host:6379/0`, or `rediss://` for TLS. A URL that is written here literally becomes part of the
   * build, with its password; the environment variable and `fromEnv` do not.
   *
   * @default the environment variable `REDIS_URL`, read when the server runs
   */
  url?: FromEnv<string>;
  /**
   * A host name or an IP address, instead of a URL.
   *
   * @default 'localhost' if `port` is set
   */
  host?: FromEnv<string>;
  /**
   * The port on `host`.
   *
   * @default 6379
   */
  port?: FromEnv<number>;
  /**
   * The ACL user of Redis.
   *
   * @default Redis's user `default`
   */
  username?: FromEnv<string>;
  /**
   * The password of Redis.
   *
   * @default no password
   */
  password?: FromEnv<string>;
  /**
   * The number of the database. A cluster has only 0.
   *
   * @default 0
   */
  db?: FromEnv<number>;
  /**
   * Whether to use TLS. `true` trusts the certificate authorities that Node trusts; an object sets others, or a client certificate.
   *
   * @default true for a `rediss://` URL, false otherwise
   */
  tls?: FromEnv<boolean | TlsOptions>;
  /** Some nodes of a Redis Cluster. The driver finds the others. In an environment variable: `host:port,host:port`. */
  cluster?: FromEnv<readonly (RedisNode | string)[]>;
  /** The Sentinels, which know which server is the master. */
  sentinel?: RedisSentinel | undefined;
}

/** The options of the driver without Astro, which can also take a client that the app has created. */
export interface RedisRuntimeConfig extends RedisDriverConfig {
  /**
   * A client of the app, instead of `url`, `host`, `cluster` or `sentinel`: a `Redis` or `Cluster` of ioredis, or what `createClient()` or
   * `createCluster()` of node-redis returns. The driver never closes it.
   */
  client?: RedisClient | undefined;
}

/** The part of a client that the driver uses. */
export type RedisClient = IoRedisClient | NodeRedisClient | NodeRedisCluster;

/** The part of an ioredis client that the driver uses. */
export interface IoRedisClient {
  readonly status: string;
  call(command: string, ...args: string[]): Promise<unknown>;
}

/** The part of a node-redis client that the driver uses. */
export interface NodeRedisClient {
  readonly isReady: boolean;
  sendCommand(args: string[], options?: object): Promise<unknown>;
}

/** The part of a node-redis cluster client that the driver uses. */
export interface NodeRedisCluster {
  readonly isOpen: boolean;
  /** Tells it from a client of a single server. */
  readonly slots: unknown;
  sendCommand(firstKey: string | undefined, isReadonly: boolean, args: string[], options?: object): Promise<unknown>;
}

/** A server. It can also be written as the string `host:port`. */
export interface RedisNode {
  /** A host name or an IP address. */
  host: FromEnv<string>;
  /**
   * The port on `host`.
   *
   * @default 6379, or 26379 for a Sentinel
   */
  port?: FromEnv<number>;
}

/** The Sentinels of a group of servers, and how to connect to them. */
export interface RedisSentinel {
  /** The name of the group in the configuration of the Sentinels. */
  name: FromEnv<string>;
  /** The Sentinels. The default port is 26379. In an environment variable: `host:port,host:port`. */
  nodes: readonly (RedisNode | string)[] | EnvRef;
  /**
   * The ACL user of the Sentinels themselves. That of Redis is the option `username`.
   *
   * @default the Sentinels' user `default`
   */
  username?: FromEnv<string>;
  /**
   * The password of the Sentinels themselves. That of Redis is the option `password`.
   *
   * @default no password
   */
  password?: FromEnv<string>;
  /**
   * TLS for the connections to the Sentinels themselves. It has the same form as the option `tls`, which is for the connections to Redis.
   *
   * @default false
   */
  tls?: FromEnv<boolean | TlsOptions>;
}

const URL_FORM =
  'a URL such as redis://user:password@host:6379/0, or rediss:// for TLS (in a password, write # / ? @ as %23 %2F %3F %40)';

/**
 * Parses a Redis URL.
 *
 * @throws an Error with the message `expected ...` if the URL is invalid. It quotes nothing of the URL, which may contain a password.
 */
export function parseRedisUrl(raw: string): ParsedUrl {
  // `URL` also accepts URLs that no Redis client accepts, so the parts are checked.
  const url = URL.canParse(raw) ? new URL(raw) : undefined;
  const protocol = /^(redis|valkey)(s?):$/.exec(url?.protocol ?? '');
  if (!url || !protocol || url.hostname === '') throw new Error(`expected ${URL_FORM}`);

  const parameters = new Map(url.searchParams);
  const db = parameters.get('db') ?? (url.pathname.length > 1 ? url.pathname.slice(1) : undefined);
  // Some providers append `family` for clients that do not try both IPv4 and IPv6. ioredis does not need it.
  parameters.delete('family');
  parameters.delete('db');
  if (parameters.size > 0)
    throw new Error('expected a URL with no parameters after the `?` except `db`; use options instead');
  if (db !== undefined && !/^\d+$/.test(db)) throw new Error(`expected a database number in the path of ${URL_FORM}`);

  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? undefined : Number(url.port),
    username: decode(url.username),
    password: decode(url.password),
    db: db === undefined ? undefined : Number(db),
    tls: protocol[2] === 's',
  };
}

/** The parts of a Redis URL. A part that the URL does not contain is undefined. */
export interface ParsedUrl {
  host: string;
  port: number | undefined;
  username: string | undefined;
  password: string | undefined;
  db: number | undefined;
  tls: boolean;
}

function decode(part: string): string | undefined {
  try {
    return part === '' ? undefined : decodeURIComponent(part);
  } catch {
    throw new Error(`expected ${URL_FORM}`);
  }
}

const redisUrl: OptionKind<string> = {
  read(raw) {
    if (typeof raw !== 'string') throw new Error(`expected ${URL_FORM}`);
    parseRedisUrl(raw);
    return raw;
  },
  holdsSecret: (url) => parseRedisUrl(url).password !== undefined,
};

const port: OptionKind<number> = integer({ from: 1, to: 65_535 });

const nodeParts: OptionKind<RedisNode> = group<RedisNode>({ host: string, port });

const node: OptionKind<RedisNode> = {
  read(raw) {
    if (typeof raw !== 'string') return nodeParts.read(raw);
    const url = URL.canParse(`redis://${raw}`) ? new URL(`redis://${raw}`) : undefined;
    if (!url || url.host !== raw.toLowerCase()) throw new Error("expected 'host:port'");
    return { host: url.hostname.replace(/^\[|\]$/g, ''), ...(url.port !== '' && { port: Number(url.port) }) };
  },
};

const sentinel = group<RedisSentinel>({
  name: string,
  nodes: list(node),
  username: string,
  password: secretString,
  tls,
});

export const redisKinds: OptionKinds<Omit<RedisDriverConfig, keyof SharedOptions>> = {
  url: redisUrl,
  host: string,
  port,
  username: string,
  password: secretString,
  db: integer(),
  tls,
  cluster: list(node),
  sentinel: sentinel as OptionKind<RedisSentinel>,
};

const client: OptionKind<RedisClient> = {
  read(raw) {
    const { call, sendCommand } = (raw ?? {}) as Record<string, unknown>;
    if (typeof call === 'function' || typeof sendCommand === 'function') return raw as RedisClient;
    throw new Error('expected a client of ioredis or node-redis');
  },
};

export const runtimeKinds: OptionKinds<Omit<RedisRuntimeConfig, keyof SharedOptions>> = { ...redisKinds, client };
