import type { Writable } from 'node:stream';
import { isSessionDriverError, msSince, pause, thisMoment } from '@coatcheck/session-core/driver';
import type { RedisCommand, RedisConnection } from '@coatcheck/session-core/redis';
import type { Cluster, Redis } from 'ioredis';
import { closeWhenDead, connectCluster, connectRedis, type IoRedis } from './client.ts';
import { explain, interrupted, reasonOf, unreachable } from './errors.ts';
import { describeTarget, type Target } from './target.ts';

/** A connection that reconnects automatically. A command waits for Redis until its signal aborts, and is not sent after that. */
export interface Connection extends RedisConnection {
  /** Closes the connection after it has received the replies to sent commands, or after one second. Commands that wait for it fail. */
  close(): Promise<void>;
}

type Client = Redis | Cluster;

/** The pause before another attempt to connect or to send a command, in milliseconds. */
const RETRY_MS = 100;
/** When a handshake has taken this long, in milliseconds, its server may be down, so another one starts in parallel. */
const NEXT_HANDSHAKE_MS = 500;
/** How long one handshake may take, in milliseconds. */
const HANDSHAKE_TIMEOUT_MS = 5000;
/** How long a client that is being closed may wait for its last replies, in milliseconds. */
const QUIT_TIMEOUT_MS = 1000;

/**
 * Creates a connection. It connects when the first command needs it.
 *
 * ioredis is used only to establish connections. Its queues would send commands whose callers were told that they had failed, and its
 * reconnecting knows no deadline. So a client is used for one connection only, and a new one is created when a command waits for it.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds.
 */
export function openConnection(ioredis: IoRedis, target: Target, timeoutMs: number): Connection {
  const address = describeTarget(target);
  let current: Client | undefined;
  let closed = false;
  let isConnecting = false;
  /** Why the last attempt to connect failed. */
  let reason: string | undefined;
  /** The clients whose handshakes are in progress. */
  const candidates = new Set<Client>();
  /** The commands that wait for a client. */
  const waiters = new Set<PromiseWithResolvers<Client>>();
  /** By socket: what to call before a command is sent on it. */
  const beforeSending = new WeakMap<object, () => void>();

  /** By socket: the signals of the writes among the commands that are sent together next. */
  const gathered = new WeakMap<Writable, AbortSignal[]>();

  /**
   * Sends a command together with all commands of this turn of the event loop. Waking Redis for each command costs more than the commands do.
   *
   * @param signal the signal of a write; undefined for a command that is harmless at any time.
   */
  const gather = (socket: Writable, signal: AbortSignal | undefined): void => {
    let writes = gathered.get(socket);
    if (!writes) {
      writes = [];
      gathered.set(socket, writes);
      const gatheredAt = thisMoment();
      socket.cork();
      setImmediate(() => {
        const signals = gathered.get(socket)!;
        gathered.delete(socket);
        // If the process was suspended in between, a write may have failed for its caller. It must not be sent then.
        const isTooLate = signals.length > 0 && msSince(gatheredAt) > timeoutMs;
        if (isTooLate || signals.some(({ aborted }) => aborted)) socket.destroy();
        else socket.uncork();
      });
    }
    if (signal) writes.push(signal);
  };

  const connect = async (): Promise<void> => {
    isConnecting = true;
    while (waiters.size > 0 && !current && !closed) {
      await Promise.race([attempt(), pause(NEXT_HANDSHAKE_MS, { idle: true })]);
      if (!current) await pause(RETRY_MS, { idle: true });
    }
    isConnecting = false;
  };

  const attempt = async (): Promise<void> => {
    const onConnection = (redis: Redis): void => {
      // An idle connection does not keep the process alive. An operation does, because its deadline is a timer.
      redis.stream.unref();
      beforeSending.set(redis.stream, closeWhenDead(redis, timeoutMs));
    };
    let client: Client | undefined;
    try {
      const connectTo = target.cluster ? connectCluster : connectRedis;
      const connecting = connectTo(ioredis, target, HANDSHAKE_TIMEOUT_MS, onConnection);
      client = connecting.client;
      candidates.add(client);
      await withTimeout(HANDSHAKE_TIMEOUT_MS, connecting.connected);
      use(client);
    } catch (error) {
      reason = reasonOf(error);
      if (client) discard(client);
      // If Redis answered with an error, each waiting command decides whether to try again. Otherwise they wait for the next attempt.
      if (await explain(error)) for (const waiter of waiters) waiter.reject(error);
    }
    if (client) candidates.delete(client);
  };

  const use = (client: Client): void => {
    if (current || closed || client.status === 'end') return discard(client);
    current = client;
    reason = undefined;
    client.once('end', () => forget(client));
    for (const waiter of waiters) waiter.resolve(client);
    for (const other of candidates) if (other !== client) discard(other);
  };

  const forget = (client: Client): void => {
    if (current === client) current = undefined;
  };

  const nextClient = async (signal: AbortSignal, wasSent: boolean): Promise<Client> => {
    const waiter = Promise.withResolvers<Client>();
    const giveUp = (): void => waiter.reject(unreachable(address, reason, wasSent));
    signal.addEventListener('abort', giveUp);
    waiters.add(waiter);
    if (!isConnecting) void connect();
    try {
      return await waiter.promise;
    } finally {
      waiters.delete(waiter);
      signal.removeEventListener('abort', giveUp);
    }
  };

  /** Passes a command to a client, and sets `status.wasSent` when it is sent. Resolves to the reply. */
  const dispatch = async (
    client: Client,
    { name, args, repeatable }: RedisCommand,
    signal: AbortSignal,
    status: { wasSent: boolean },
  ): Promise<unknown> => {
    // The name must be in upper case: ioredis would convert the reply of `hgetall` to an object, in which `__proto__` is a special key.
    const command = new ioredis.Command(name, args, { replyEncoding: 'utf8' });
    // Prevents ioredis from publishing the command with its arguments, which contain session data, on its own tracing channels.
    command.isTraced = true;
    let isReplaced = false;
    command.toWritable = (socket) => {
      // A cluster client may have kept the command until it had a connection. If the signal has aborted since, the command must not be
      // sent. ioredis has to send something and expects a reply, so it sends a PING.
      isReplaced = signal.aborted;
      if (isReplaced) return '*1\r\n$4\r\nPING\r\n';
      status.wasSent = true;
      gather(socket as Writable, repeatable ? undefined : signal);
      beforeSending.get(socket)?.();
      return ioredis.Command.prototype.toWritable.call(command, socket);
    };
    client.sendCommand(command);
    const reply: unknown = await command.promise;
    if (isReplaced) throw status.wasSent ? interrupted() : unreachable(address, reason);
    return reply;
  };

  return {
    async send(request, { signal }) {
      let retryUntil: number | undefined;
      let wasSent = false;
      for (;;) {
        if (closed || signal.aborted) throw unreachable(address, reason, wasSent);
        let client = current;
        const status = { wasSent: false };
        try {
          client ??= await nextClient(signal, wasSent);
          return await dispatch(client, request, signal, status);
        } catch (error) {
          if (isSessionDriverError(error)) throw error;
          const failure = await explain(error);
          if (failure) {
            // Stop before the deadline: this error says more than a timeout does.
            retryUntil ??= Date.now() + timeoutMs / 2;
            if (!failure.transient || Date.now() >= retryUntil) throw failure.error;
            if (failure.elsewhere && client && client === current) void closeGracefully(client);
          } else if (status.wasSent && !request.repeatable) throw interrupted();
          wasSent ||= status.wasSent;
        }
        await pause(RETRY_MS, { signal, idle: true });
      }
    },

    async close() {
      closed = true;
      for (const waiter of waiters) waiter.reject(unreachable(address, 'the driver was closed'));
      for (const candidate of candidates) discard(candidate);
      if (current) await closeGracefully(current);
    },
  };

  /** Closes a client after it has received the replies to the commands that were sent, or after `QUIT_TIMEOUT_MS`. */
  async function closeGracefully(client: Client): Promise<void> {
    forget(client);
    await Promise.race([client.quit().catch(() => undefined), pause(QUIT_TIMEOUT_MS, { idle: true })]);
    discard(client);
  }
}

/** Closes a client immediately. */
function discard(client: Client): void {
  const connections = 'nodes' in client ? client.nodes() : [client];
  client.disconnect();
  for (const { stream } of connections) stream?.destroy();
}

/** Rejects if `work` does not settle within `ms` milliseconds. */
function withTimeout<Result>(ms: number, work: Promise<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms).unref();
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
