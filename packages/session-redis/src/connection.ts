import type { Writable } from 'node:stream';
import { pause, isSessionDriverError } from '@coatcheck/session-core/driver';
import type { RedisCommand, RedisConnection } from '@coatcheck/session-core/redis';
import type { Cluster, Redis } from 'ioredis';
import { connectCluster, connectRedis, watch, type IoRedis } from './client.ts';
import { explain, interrupted, reasonOf, unreachable } from './errors.ts';
import { placeOf, type Target } from './target.ts';

/** A way to one Redis that mends itself. Waits for Redis until the call's signal aborts, and sends nothing after that. */
export interface Connection extends RedisConnection {
  close(): Promise<void>;
}

type Client = Redis | Cluster;

/** How soon what failed is tried again. */
const RETRY_MS = 100;
/** A server that has not answered a handshake for so long may be gone: the next one is begun beside it. */
const NEXT_HANDSHAKE_MS = 500;
/** How long one handshake may take at all. */
const HANDSHAKE_MS = 5000;
/** How long a connection that is not needed any more may take to end by itself. */
const PARTING_MS = 1000;

/**
 * ioredis makes the connections and nothing else is left to it: its queues send commands whose callers were told that they had
 * failed, and its reconnecting knows no deadline. A client lives for one connection, and is made when somebody waits for it.
 */
export function openConnection(ioredis: IoRedis, target: Target, timeoutMs: number): Connection {
  const place = placeOf(target);
  let current: Client | undefined;
  let closed = false;
  let dialing = false;
  /** Why the last attempt to connect failed. */
  let reason: string | undefined;
  const candidates = new Set<Client>();
  const waiting = new Set<PromiseWithResolvers<Client>>();
  /** What to call when a command goes out on a socket. */
  const watches = new WeakMap<object, () => void>();

  const dial = async (): Promise<void> => {
    dialing = true;
    while (waiting.size > 0 && !current && !closed) {
      await Promise.race([attempt(), pause(NEXT_HANDSHAKE_MS, { idle: true })]);
      if (!current) await pause(RETRY_MS, { idle: true });
    }
    dialing = false;
  };

  const attempt = async (): Promise<void> => {
    const onConnection = (redis: Redis): void => {
      // An idle connection does not keep the process alive. An operation does: its deadline is a timer.
      redis.stream.unref();
      watches.set(redis.stream, watch(redis, timeoutMs));
    };
    let client: Client | undefined;
    try {
      const connect = target.cluster ? connectCluster : connectRedis;
      const connecting = connect(ioredis, target, HANDSHAKE_MS, onConnection);
      client = connecting.client;
      candidates.add(client);
      await within(HANDSHAKE_MS, connecting.connected);
      use(client);
    } catch (error) {
      reason = reasonOf(error);
      // When Redis has spoken, those who wait decide whether waiting is any use; else they go on.
      if (explain(error)) for (const waiter of waiting) waiter.reject(error);
      if (client) discard(client);
    }
    if (client) candidates.delete(client);
  };

  const use = (client: Client): void => {
    if (current || closed || client.status === 'end') return discard(client);
    current = client;
    reason = undefined;
    client.once('end', () => forget(client));
    for (const waiter of waiting) waiter.resolve(client);
    for (const other of candidates) if (other !== client) discard(other);
  };

  const forget = (client: Client): void => {
    if (current === client) current = undefined;
  };

  const nextConnection = async (signal: AbortSignal, wasSent: boolean): Promise<Client> => {
    const waiter = Promise.withResolvers<Client>();
    const giveUp = (): void => waiter.reject(unreachable(place, reason, wasSent));
    signal.addEventListener('abort', giveUp);
    waiting.add(waiter);
    if (!dialing) void dial();
    try {
      return await waiter.promise;
    } finally {
      waiting.delete(waiter);
      signal.removeEventListener('abort', giveUp);
    }
  };

  /** Hands a command to a client, and notes when it goes out. Resolves to the reply. */
  const dispatch = async (
    client: Client,
    { name, args }: RedisCommand,
    signal: AbortSignal,
    sending: { isOut: boolean },
  ): Promise<unknown> => {
    // Not in small letters: ioredis would turn the reply of `hgetall` into an object, where `__proto__` is no key like others.
    const command = new ioredis.Command(name, args, { replyEncoding: 'utf8' });
    // Otherwise ioredis would show the command and its arguments to subscribers of its own tracing channels.
    command.isTraced = true;
    let isDecoy = false;
    command.toWritable = (socket) => {
      // A cluster's client may have kept the command until it had a connection. By now something has to go out in its place.
      isDecoy = signal.aborted;
      if (isDecoy) return '*1\r\n$4\r\nPING\r\n';
      sending.isOut = true;
      gather(socket as Writable);
      watches.get(socket)?.();
      return ioredis.Command.prototype.toWritable.call(command, socket);
    };
    client.sendCommand(command);
    const reply: unknown = await command.promise;
    if (isDecoy) throw sending.isOut ? interrupted() : unreachable(place, reason);
    return reply;
  };

  return {
    async send(request, { signal }) {
      let patienceEndsAt: number | undefined;
      let wasSent = false;
      for (;;) {
        if (closed || signal.aborted) throw unreachable(place, reason, wasSent);
        let client = current;
        const sending = { isOut: false };
        try {
          client ??= await nextConnection(signal, wasSent);
          return await dispatch(client, request, signal, sending);
        } catch (error) {
          if (isSessionDriverError(error)) throw error;
          const meaning = explain(error);
          if (meaning) {
            patienceEndsAt ??= Date.now() + timeoutMs / 2;
            if (!meaning.transient || Date.now() >= patienceEndsAt) throw meaning.error;
            if (meaning.elsewhere && client && client === current) void part(client);
          } else if (sending.isOut && !request.repeatable) throw interrupted();
          wasSent ||= sending.isOut;
        }
        await pause(RETRY_MS, { signal, idle: true });
      }
    },

    async close() {
      closed = true;
      for (const waiter of waiting) waiter.reject(unreachable(place, 'the driver was closed'));
      for (const candidate of candidates) discard(candidate);
      if (current) await part(current);
    },
  };

  /** Lets what is under way be answered first. */
  async function part(client: Client): Promise<void> {
    forget(client);
    await Promise.race([client.quit().catch(() => undefined), pause(PARTING_MS, { idle: true })]);
    discard(client);
  }
}

function discard(client: Client): void {
  const connections = 'nodes' in client ? client.nodes() : [client];
  client.disconnect();
  for (const { stream } of connections) stream?.destroy();
}

/** What goes out in one tick goes out in one write: waking Redis for every command costs more than the commands do. */
function gather(socket: Writable): void {
  if (socket.writableCorked > 0) return;
  socket.cork();
  process.nextTick(() => socket.uncork());
}

function within<Result>(ms: number, work: Promise<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms).unref();
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
