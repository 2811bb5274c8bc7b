import type * as ioredis from 'ioredis';
import type { Cluster, ClusterOptions, Redis, RedisOptions } from 'ioredis';
import type { Target } from './target.ts';

/** What is used of the module, which is imported late. */
export type IoRedis = Pick<typeof ioredis, 'Cluster' | 'Command' | 'Redis'>;

/** A client on its way. `connected` rejects with the reason, as far as there is one. */
export interface Connecting<Client> {
  client: Client;
  connected: Promise<unknown>;
}

/** How long a Sentinel may take to name the master before the next one is asked. */
const SENTINEL_MS = 1000;
/** How often a connection that nobody uses is looked after, so that nothing between here and Redis forgets it. */
const KEEP_ALIVE_MS = 30_000;

/** What holds for every connection: it is not made again, and nothing is kept back or sent twice. */
function commonOptions(target: Target, connectTimeout: number) {
  return {
    lazyConnect: true,
    // The third begins with a command of its own, which older servers refuse and which wants the password at once.
    protocol: 2,
    connectTimeout,
    // A timer that holds the process, also for a connection that is closed already.
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

/** `onConnection` is called with every connection as it is made, before it carries a command. */
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
      // In a random order, so that a Sentinel that missed a failover is not always the first.
      sentinels: target.server.sentinels.toSorted(() => Math.random() - 0.5),
      sentinelRetryStrategy: () => null,
      sentinelCommandTimeout: SENTINEL_MS,
      enableTLSForSentinelMode: target.tls !== undefined,
    }),
  });
  client.on('connect', () => onConnection(client));
  return { client, connected: orReason(client, shakeHands(client, target)) };
}

// Not left to ioredis, which goes on in database 0 when the right one cannot be selected, and prints what it thinks of passwords.
async function shakeHands(redis: Redis, { username, password, db, server }: Target): Promise<void> {
  await redis.connect();
  const answers: Promise<unknown>[] = [];
  if (username !== undefined) answers.push(redis.auth(username, password ?? ''));
  else if (password !== undefined) answers.push(redis.auth(password).catch(unlessNoneIsNeeded));
  if (db !== 0) answers.push(redis.select(db));
  answers.push(
    server.sentinels ? redis.role().then(mustBeMaster, unlessForbidden) : redis.ping().catch(unlessForbidden),
  );
  await Promise.all(answers);
}

function unlessNoneIsNeeded(error: Error): void {
  if (!/no password is set|without any password configured/.test(error.message)) throw error;
}

function unlessForbidden(error: Error): void {
  if (!/\bNOPERM\b/.test(error.message)) throw error;
}

function mustBeMaster(role: unknown): void {
  if ((role as string[])[0] !== 'master') throw Object.assign(new Error('NOTMASTER'), { name: 'ReplyError' });
}

/** The same for a cluster, whose nodes ioredis finds and connects to by itself. */
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
    // A certificate is for a name, so names are not looked up beforehand.
    ...(target.tls && { dnsLookup: (name, found) => found(null, name) }),
    redisOptions: {
      ...commonOptions(target, connectTimeout),
      ...(target.username !== undefined && { username: target.username }),
      ...(target.password !== undefined && { password: target.password }),
    },
  } satisfies ClusterOptions;
  const client = new Cluster(target.cluster ?? [], options);
  client.on('+node', (redis: Redis) => redis.on('connect', () => onConnection(redis)));
  return { client, connected: orReason(client, client.connect()) };
}

// The promises only say that a connection was closed; why is told to the listener, without which ioredis prints it.
async function orReason(client: Redis | Cluster, connected: Promise<unknown>): Promise<void> {
  let reason: unknown;
  client.on('error', (error: unknown) => (reason = error));
  try {
    await connected;
  } catch (error) {
    throw error instanceof Error && error.name === 'ReplyError' ? error : (reason ?? error);
  }
}

/** How long after the first caller gave up a connection may stay silent. */
const GRACE_MS = 1000;
/** What a timer may be late by on a machine that is merely busy. */
const LATE_MS = 50;

/**
 * Cuts a connection that owes an answer and has been silent for longer than any caller waits: it is dead, whatever TCP thinks.
 *
 * @returns what to call whenever a command is about to be sent.
 */
export function watch(redis: Redis, timeoutMs: number): () => void {
  const { stream } = redis;
  let silentSince = 0;
  let timer: NodeJS.Timeout | undefined;

  const lookIn = (ms: number): void => {
    timer = setTimeout(look, ms, Date.now() + ms).unref();
  };
  const look = (dueAt: number): void => {
    timer = undefined;
    if (redis.commandQueue.length === 0 || stream.destroyed) return;
    const now = Date.now();
    // What has not even left this process must not leave it after its caller was told that it failed.
    const limit = stream.writableLength > 0 ? timeoutMs : timeoutMs + GRACE_MS;
    const left = silentSince + limit - now;
    if (left > 0) lookIn(left);
    // After a blocked loop or a frozen process the answers may lie unread in the socket.
    else if (now - dueAt > LATE_MS) lookIn(LATE_MS);
    else cut(stream);
  };

  stream.on('data', () => {
    silentSince = Date.now();
  });
  return () => {
    if (redis.commandQueue.length === 0) silentSince = Date.now();
    if (!timer) lookIn(timeoutMs);
  };
}

function cut(stream: Redis['stream']): void {
  // A reset also takes back what this machine has accepted and could not deliver; TLS has no such thing.
  if ('encrypted' in stream) stream.destroy();
  else stream.resetAndDestroy();
}
