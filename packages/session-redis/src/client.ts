import type * as ioredis from 'ioredis';
import type { Cluster, ClusterOptions, Redis, RedisOptions } from 'ioredis';
import type { Target } from './target.ts';

/** The part of the module ioredis that the driver uses. The module is imported when the driver is first used. */
export type IoRedis = Pick<typeof ioredis, 'Cluster' | 'Command' | 'Redis'>;

/** A client that is connecting. */
export interface Connecting<Client> {
  client: Client;
  /** Resolves when the client is ready for commands. Rejects with the reason for the failure, if there is one. */
  connected: Promise<unknown>;
}

/** How long a Sentinel may take to name the master, in milliseconds. After it, the next Sentinel is asked. */
const SENTINEL_TIMEOUT_MS = 1000;
/** How long a connection is idle before TCP keep-alive starts, in milliseconds. It stops firewalls from dropping idle connections. */
const KEEP_ALIVE_MS = 30_000;

/** The options of every connection. ioredis must not reconnect, queue commands or send a command again: `openConnection` does that. */
function commonOptions(target: Target, connectTimeout: number) {
  return {
    lazyConnect: true,
    // RESP3 starts with the command `HELLO`. Servers before Redis 6 do not know it, and it needs the password at once.
    protocol: 2,
    connectTimeout,
    // ioredis destroys a disconnected socket after this time. Its timer keeps the process alive, even if the socket is already closed.
    disconnectTimeout: 0,
    keepAlive: KEEP_ALIVE_MS,
    disableClientInfo: true,
    enableReadyCheck: false,
    retryStrategy: null,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: null,
    ...(target.tls && { tls: target.tls }),
  } satisfies RedisOptions;
}

/**
 * Connects to one server, directly or through Sentinels.
 *
 * @param connectTimeout how long establishing the connection may take, in milliseconds.
 * @param onConnection is called with each new connection, before a command is sent on it.
 */
export function connectRedis(
  { Redis }: IoRedis,
  target: Target,
  connectTimeout: number,
  onConnection: (redis: Redis) => void,
): Connecting<Redis> {
  const client = new Redis({
    ...commonOptions(target, connectTimeout),
    ...target.server,
    ...(target.server.sentinels && {
      // In a random order. Otherwise, a Sentinel that missed a failover could be the first at every attempt.
      sentinels: target.server.sentinels.toSorted(() => Math.random() - 0.5),
      sentinelRetryStrategy: () => null,
      sentinelCommandTimeout: SENTINEL_TIMEOUT_MS,
      enableTLSForSentinelMode: target.tls !== undefined,
    }),
  });
  client.on('connect', () => onConnection(client));
  return { client, connected: withReason(client, handshake(client, target)) };
}

/**
 * Connects, logs in and selects the database. The options of ioredis are not used for this: it continues in database 0 if the database
 * cannot be selected, and prints warnings about passwords.
 */
async function handshake(redis: Redis, { username, password, db, server }: Target): Promise<void> {
  await redis.connect();
  const replies: Promise<unknown>[] = [];
  if (username !== undefined) replies.push(redis.auth(username, password ?? ''));
  else if (password !== undefined) replies.push(redis.auth(password).catch(ignoreUnneededPassword));
  if (db !== 0) replies.push(redis.select(db));
  // A Sentinel that missed a failover names a server that is no longer the master.
  replies.push(
    server.sentinels ? redis.role().then(assertMaster, ignoreNoPermission) : redis.ping().catch(ignoreNoPermission),
  );
  await Promise.all(replies);
}

/** Ignores the error of a server that has no password. */
function ignoreUnneededPassword(error: Error): void {
  if (!/no password is set|without any password configured/.test(error.message)) throw error;
}

/** Ignores that the ACL user may not send this command: the server answered, so the connection works. */
function ignoreNoPermission(error: Error): void {
  if (!/\bNOPERM\b/.test(error.message)) throw error;
}

function assertMaster(role: unknown): void {
  if ((role as string[])[0] !== 'master') throw Object.assign(new Error('NOTMASTER'), { name: 'ReplyError' });
}

/**
 * Connects to a cluster. ioredis finds the nodes and connects to each of them.
 *
 * @param connectTimeout how long finding the nodes may take, and each connection to a node, in milliseconds.
 * @param onConnection is called with the new connection to each node, before a command is sent on it.
 */
export function connectCluster(
  { Cluster }: IoRedis,
  target: Target,
  connectTimeout: number,
  onConnection: (redis: Redis) => void,
): Connecting<Cluster> {
  const options = {
    lazyConnect: true,
    enableReadyCheck: false,
    enableOfflineQueue: false,
    clusterRetryStrategy: () => null,
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    slotsRefreshTimeout: connectTimeout,
    // With TLS, connect by host name and not by address, because certificates are issued for names.
    ...(target.tls && { dnsLookup: (name, found) => found(null, name) }),
    redisOptions: {
      ...commonOptions(target, connectTimeout),
      ...(target.username !== undefined && { username: target.username }),
      ...(target.password !== undefined && { password: target.password }),
    },
  } satisfies ClusterOptions;
  const client = new Cluster(target.cluster ?? [], options);
  client.on('+node', (redis: Redis) => redis.on('connect', () => onConnection(redis)));
  return { client, connected: withReason(client, client.connect()) };
}

/**
 * Makes a failed connection reject with its reason. The promise of ioredis only says that the connection was closed. The reason is in an
 * `error` event, which ioredis prints if nothing listens to it.
 */
async function withReason(client: Redis | Cluster, connected: Promise<unknown>): Promise<void> {
  let reason: unknown;
  client.on('error', (error: unknown) => (reason = error));
  try {
    await connected;
  } catch (error) {
    throw error instanceof Error && error.name === 'ReplyError' ? error : (reason ?? error);
  }
}

/** How much longer than the timeout of an operation a connection may be silent, in milliseconds. */
const GRACE_MS = 1000;
/** How late a timer may fire on a busy machine. A later one shows that the event loop was blocked or the process was suspended. */
const TIMER_SLACK_MS = 50;

// Not ioredis's `socketTimeout`: with it, "an answer that came while the loop was blocked is read" fails, and so does the same test with a
// frozen site, because its timer fires before Node reads the reply. It has one limit for all data, and closes without a TCP reset, so that
// the system may still deliver a write after its caller was told that it failed.
/**
 * Closes a connection that owes a reply and has been silent for longer than any caller waits. Such a connection is dead, even if TCP has
 * not noticed it.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds.
 * @returns a function to call before each command is sent.
 */
export function closeWhenDead(redis: Redis, timeoutMs: number): () => void {
  const { stream } = redis;
  let silentSince = 0;
  let timer: NodeJS.Timeout | undefined;

  const checkIn = (ms: number): void => {
    timer = setTimeout(check, ms, Date.now() + ms).unref();
  };
  const check = (dueAt: number): void => {
    timer = undefined;
    if (redis.commandQueue.length === 0 || stream.destroyed) return;
    const now = Date.now();
    // There is no grace for data that has not left this process: it must not be sent after its caller was told that the operation failed.
    // Corked data is sent in this turn of the event loop, so it is not stuck.
    const isStuck = stream.writableLength > 0 && stream.writableCorked === 0;
    const limit = isStuck ? timeoutMs : timeoutMs + GRACE_MS;
    const left = silentSince + limit - now;
    if (left > 0) checkIn(left);
    // After the event loop was blocked or the process was suspended, replies may be waiting in the socket. Give the process time to read
    // them.
    else if (now - dueAt > TIMER_SLACK_MS) checkIn(TIMER_SLACK_MS);
    else abortConnection(stream);
  };

  stream.on('data', () => {
    silentSince = Date.now();
  });
  return () => {
    if (redis.commandQueue.length === 0) silentSince = Date.now();
    if (!timer) checkIn(timeoutMs);
  };
}

function abortConnection(stream: Redis['stream']): void {
  // A TCP reset also discards data that the operating system has accepted and not delivered yet. A TLS socket has no such method.
  if ('encrypted' in stream) stream.destroy();
  else stream.resetAndDestroy();
}
