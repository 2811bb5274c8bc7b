import {
  boolean,
  group,
  list,
  secretString,
  string,
  integer,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type SharedOptions,
  type EnvRef,
} from '@coatcheck/session-core/driver';

/**
 * Where Redis is: one of `url`, `host`, `cluster` and `sentinel`; without any, the variable `REDIS_URL` says it. The other options go
 * with each of them, and win over what a URL says.
 */
export interface RedisDriverConfig extends SharedOptions {
  /**
   * `redis://user:password@host:6379/0`, or `rediss://` for TLS. Default: the variable `REDIS_URL`, read when the server runs, which
   * keeps the password out of the build.
   */
  url?: FromEnv<string>;
  /** A host name or an address, in place of a URL. Default, when there is a `port`: `localhost`. */
  host?: FromEnv<string>;
  /** The port on `host`. Default: 6379. */
  port?: FromEnv<number>;
  /** The ACL user. Default: Redis's `default` user. */
  username?: FromEnv<string>;
  password?: FromEnv<string>;
  /** The number of the database. Default: 0, the only one that a cluster has. */
  db?: FromEnv<number>;
  /** `true` for TLS with the certificates that Node trusts; an object to say which. Default: only where the URL says `rediss://`. */
  tls?: FromEnv<boolean | RedisTls>;
  /** Some nodes of a Redis Cluster, from which the others are found; in a variable: `host:port,host:port`. */
  cluster?: FromEnv<readonly (RedisNode | string)[]>;
  /** The Sentinels that know which Redis is the master. */
  sentinel?: RedisSentinel | undefined;
}

/** One server. As text: `host:port`. */
export interface RedisNode {
  host: FromEnv<string>;
  port?: FromEnv<number>;
}

/** The words are those of Node's `tls.connect()`. Certificates and keys are PEM text, not file names. */
export interface RedisTls {
  /** The certificate authority to trust, in place of those that Node brings. */
  ca?: FromEnv<string>;
  /** The client's certificate, where Redis asks for one. */
  cert?: FromEnv<string>;
  key?: FromEnv<string>;
  /** The name that the server's certificate is for. Default: the host. */
  servername?: FromEnv<string>;
  /** `false` takes any certificate, and with it anyone in between. Default: true. */
  rejectUnauthorized?: FromEnv<boolean>;
}

export interface RedisSentinel {
  /** The name of the group of servers, in Sentinel's configuration. */
  name: FromEnv<string>;
  /** The Sentinels; the default port is 26379. */
  nodes: readonly (RedisNode | string)[] | EnvRef;
  /** The user and the password of the Sentinels themselves; those of Redis stand beside `sentinel`. */
  username?: FromEnv<string>;
  password?: FromEnv<string>;
  /** TLS to the Sentinels themselves; as the `tls` beside `sentinel`. Default: false. */
  tls?: FromEnv<boolean | RedisTls>;
}

const URL_FORM =
  'a URL such as redis://user:password@host:6379/0, or rediss:// for TLS (characters like # / ? @ in a password are written %23 %2F %3F %40)';

/** What a `redis://` URL says. Throws a plain Error that quotes nothing of it. */
export function parseRedisUrl(raw: string): ParsedUrl {
  // WHATWG's parser accepts more than any Redis client means by a URL.
  const url = URL.canParse(raw) ? new URL(raw) : undefined;
  const protocol = /^(redis|valkey)(s?):$/.exec(url?.protocol ?? '');
  if (!url || !protocol || url.hostname === '') throw new Error(`expected ${URL_FORM}`);

  const parameters = new Map(url.searchParams);
  const db = parameters.get('db') ?? (url.pathname.length > 1 ? url.pathname.slice(1) : undefined);
  // Providers append it for clients that do not try both kinds of address by themselves.
  parameters.delete('family');
  parameters.delete('db');
  if (parameters.size > 0)
    throw new Error('expected a URL with no parameters after the `?` but `db`; use options instead');
  if (db !== undefined && !/^\d+$/.test(db))
    throw new Error(`expected the number of a database in the path of ${URL_FORM}`);

  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? undefined : Number(url.port),
    username: decode(url.username),
    password: decode(url.password),
    db: db === undefined ? undefined : Number(db),
    tls: protocol[2] === 's',
  };
}

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

const tlsParts = group<RedisTls>({
  ca: string,
  cert: string,
  key: secretString,
  servername: string,
  rejectUnauthorized: boolean,
});

const tls: OptionKind<boolean | RedisTls> = {
  read: (raw) => (typeof raw === 'object' && raw !== null ? tlsParts.read(raw) : boolean.read(raw)),
  holdsSecret: (value) => typeof value === 'object' && value.key !== undefined,
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
