import { createError, isSessionDriverError, retry, type StoreCall, type Failure } from '@coatcheck/session-core/driver';
import type { RedisCommand, RedisConnection } from '@coatcheck/session-core/redis';
import { explain, interrupted } from './errors.ts';
import { DRIVER } from './options.ts';
import type { IoRedisClient, NodeRedisClient, NodeRedisCluster, RedisClient } from './options.ts';

/** How long to wait before a command is sent again, in milliseconds. */
const RETRY_MS = 50;

/**
 * Uses a client of the app, which is never closed. A command is sent only while the client is connected, because a client's own queue could
 * send it after its caller was told that it had failed.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds.
 */
export function useClient(client: RedisClient, timeoutMs: number): RedisConnection {
  const send = 'call' in client ? withIoRedis(client) : withNodeRedis(client);
  return {
    send(command, call) {
      let wasSent = false;
      const attempt = async (): Promise<unknown> => {
        if (!isConnected(client)) throw notConnected(wasSent);
        wasSent = true;
        return send(command, call);
      };
      const judge = async (error: unknown): Promise<Failure> => {
        if (isSessionDriverError(error)) return { error, transient: true };
        const failure = await explain(error);
        return (
          failure ?? {
            error: command.repeatable ? notConnected(wasSent) : interrupted(),
            transient: command.repeatable,
          }
        );
      };
      return retry(attempt, { signal: call.signal, forMs: timeoutMs / 2, pauseMs: RETRY_MS, judge });
    },
  };
}

/** Whether the client sends a command now. ioredis with `lazyConnect` connects when it gets its first command. */
export function isConnected(client: RedisClient): boolean {
  if ('call' in client) return client.status === 'ready' || client.status === 'wait';
  return 'isReady' in client ? client.isReady : client.isOpen;
}

type Send = (command: RedisCommand, call: StoreCall) => Promise<unknown>;

function withIoRedis(client: IoRedisClient): Send {
  return ({ name, args }, { signal }) => {
    signal.throwIfAborted();
    return client.call(name, ...args);
  };
}

function withNodeRedis(client: NodeRedisClient | NodeRedisCluster): Send {
  return ({ name, args }, { signal }) => {
    // RESP3 replies with a map. node-redis would make an object of it, in which `__proto__` is a special key.
    const options = { typeMapping: { [RESP_MAP]: Array }, abortSignal: signal };
    if (!('slots' in client)) return client.sendCommand([name, ...args], options);
    const key = name.startsWith('EVAL') ? args[2] : args[0];
    return client.sendCommand(key, false, [name, ...args], options);
  };
}

/** The type of maps in the protocol: the character `%`. */
const RESP_MAP = 37;

/** @param wasSent whether an earlier attempt was sent: a read whose connection broke. */
function notConnected(wasSent: boolean): Error {
  return createError(
    DRIVER,
    'unavailable',
    `The \`client\` is not connected to Redis.${wasSent ? '' : ' Nothing was sent.'} Has the app called \`connect()\`, and is Redis running?`,
  );
}
